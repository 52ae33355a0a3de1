//! The program libFuzzer drives, on the target that the variable `FUZZ_TARGET` names. Without `--cfg fuzzing` it runs a
//! target on files instead, to look at what libFuzzer has found.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod driven {
    use std::env;
    use std::sync::LazyLock;

    use fuzz::Target;

    static TARGET: LazyLock<Target> = LazyLock::new(|| {
        let name = env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        Target::named(&name).expect("there is a target of that name")
    });

    libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next().and_then(|name| fuzz::Target::named(&name)) else {
        let names = fuzz::TARGETS.map(|target| target.name);
        eprintln!("cargo run --package fuzz -- TARGET FILE …, where TARGET is one of {}", names.join(", "));
        return std::process::ExitCode::FAILURE;
    };
    for path in arguments {
        match std::fs::read(&path) {
            Ok(input) => (target.run)(&input),
            Err(error) => {
                eprintln!("error: cannot read {path}: {error}");
                return std::process::ExitCode::FAILURE;
            }
        }
        println!("{path}: {} holds", target.name);
    }
    std::process::ExitCode::SUCCESS
}
