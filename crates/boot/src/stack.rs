//! Room on every thread's stack for whatever a stranger puts into a message's headers.
//!
//! lapin reads nested headers by recursion, on a thread of its own whose stack has 2 MiB; a header of a kilobyte that
//! nests 300 deep overflows it, and the process aborts. A header fits into one frame of 128 KiB, which bounds the
//! nesting to some 26 000 levels of 5 bytes, and those fit into the stack asked for here. It is address space: memory
//! is used only where a stack really grows.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// What the standard library reads the size of a new thread's stack from.
const VARIABLE: &str = "RUST_MIN_STACK";

/// 512 MiB. In a build without optimisation 25 000 levels overflow 256 MiB and fit into 320 MiB, so that 26 000 leave a
/// third of it free; `hostile.rs` in e2e sends them.
const STACK_BYTES: &str = "536870912";

/// Runs the program again in this process with [`STACK_BYTES`] for each thread, unless the environment says how much.
/// To be called before any thread is started.
///
/// # Errors
/// When the program cannot be run again.
pub fn make_room() -> std::io::Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    Err(Command::new(std::env::current_exe()?).arg0(name).args(arguments).env(VARIABLE, STACK_BYTES).exec())
}
