//! Secrets in files, as containers get them: where `NAME` is the variable of a secret, `NAME_FILE` names a file with its
//! value.
//!
//! A secret is what a help text does not show (`hide_env_values`), so that a service declares it once. A source is the
//! environment or one of the files that add to it; the first that tells a secret in either way wins, as with any other
//! setting. Where one source tells both, the file wins: compose files and charts always set the variable.

use std::collections::HashMap;
use std::fs;

use clap::error::ErrorKind;
use clap::{Arg, Command};

/// Gives each secret of `command` that the `sources` tell by a file the value in that file.
///
/// # Errors
/// When a file cannot be read or is empty.
pub(super) fn read(command: Command, sources: &[HashMap<String, String>]) -> Result<Command, clap::Error> {
    let mut failed = None;
    let mut read = in_files(command, &mut |arg| match from_file(&arg, sources) {
        Ok(Some(value)) => arg.env(None).default_value(value).hide_default_value(true),
        Ok(None) => arg,
        Err(reason) => {
            failed.get_or_insert(reason);
            arg
        }
    });
    match failed {
        Some(reason) => Err(read.error(ErrorKind::ValueValidation, reason)),
        None => Ok(read),
    }
}

/// Changes the arguments of a command and of those below it.
fn in_files(command: Command, change: &mut dyn FnMut(Arg) -> Arg) -> Command {
    command.mut_args(&mut *change).mut_subcommands(|below| in_files(below, change))
}

/// The value of a secret that is told by a file.
fn from_file(arg: &Arg, sources: &[HashMap<String, String>]) -> Result<Option<String>, String> {
    let Some(name) = arg.get_env().and_then(|name| name.to_str()).filter(|_| arg.is_hide_env_values_set()) else {
        return Ok(None);
    };
    let name_of_file = format!("{name}_FILE");
    for source in sources {
        let Some(path) = source.get(&name_of_file) else {
            if source.contains_key(name) {
                break;
            }
            continue;
        };
        let content = fs::read_to_string(path)
            .map_err(|error| format!("{name_of_file} names {path}, which cannot be read: {error}"))?;
        return match content.trim() {
            "" => Err(format!("{name_of_file} names {path}, which is empty")),
            value => Ok(Some(value.to_owned())),
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;
    use secrecy::{ExposeSecret, SecretString};

    use super::*;

    #[derive(Debug, Parser)]
    enum Cli {
        Serve {
            #[arg(long, env = "A_SECRET", hide_env_values = true, default_value = "known", hide_default_value = true)]
            secret: SecretString,
            #[arg(long, env = "A_CERT_FILE")]
            cert: Option<PathBuf>,
        },
    }

    fn source(variables: &[(&str, &str)]) -> HashMap<String, String> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// A file with this content in a folder for all of these tests.
    fn file(name: &str, content: &str) -> String {
        let folder = std::env::temp_dir().join(format!("boot-secrets-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn parsed(sources: &[HashMap<String, String>], arguments: &[&str]) -> Result<String, String> {
        let command = read(<Cli as clap::CommandFactory>::command(), sources).map_err(|error| error.to_string())?;
        let mut matches = command.try_get_matches_from([&["it", "serve"], arguments].concat()).unwrap();
        let Cli::Serve { secret, cert } = clap::FromArgMatches::from_arg_matches_mut(&mut matches).unwrap();
        assert_eq!(cert, None, "no secret, and so none of ours");
        Ok(secret.expose_secret().to_owned())
    }

    #[test]
    fn a_secret_is_read_from_the_file_its_variable_names() {
        let path = file("plain", "\n  p4ss word\n\n");
        assert_eq!(parsed(&[source(&[("A_SECRET_FILE", &path)])], &[]).as_deref(), Ok("p4ss word"));
        assert_eq!(parsed(&[source(&[])], &[]).as_deref(), Ok("known"));
        let told = parsed(&[source(&[("A_SECRET_FILE", &path)])], &["--secret", "told"]);
        assert_eq!(told.as_deref(), Ok("told"), "as a flag wins over any variable");
    }

    #[test]
    fn the_first_source_that_tells_a_secret_wins() {
        let path = file("layers", "from file");
        let (by_file, by_value) = (source(&[("A_SECRET_FILE", &path)]), source(&[("A_SECRET", "value")]));
        assert_eq!(parsed(&[source(&[]), by_file.clone()], &[]).as_deref(), Ok("from file"));
        assert_eq!(parsed(&[by_file.clone(), by_value.clone()], &[]).as_deref(), Ok("from file"));
        let both = source(&[("A_SECRET", "value"), ("A_SECRET_FILE", &path)]);
        assert_eq!(parsed(&[both], &[]).as_deref(), Ok("from file"), "in one source the file");
        // What the environment tells by itself is read by clap.
        assert_eq!(parsed(&[by_value, by_file], &[]).as_deref(), Ok("known"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let empty = file("empty", " \n");
        let refused = [
            (source(&[("A_SECRET_FILE", "/no/such")]), "A_SECRET_FILE names /no/such, which cannot be read: No such"),
            (source(&[("A_SECRET_FILE", &empty)]), "which is empty"),
        ];
        for (source, reason) in refused {
            let error = parsed(&[source], &[]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn help_shows_no_secret_of_a_file() {
        let path = file("help", "hidden-value");
        let sources = [source(&[("A_SECRET_FILE", &path)])];
        let command = read(<Cli as clap::CommandFactory>::command(), &sources).unwrap();
        let help = command.try_get_matches_from(["it", "serve", "--help"]).unwrap_err().to_string();
        assert!(help.contains("--secret") && !help.contains("hidden-value"), "{help}");
    }

    #[test]
    fn only_secrets_may_be_in_files() {
        let path = file("cert", "a certificate");
        assert_eq!(parsed(&[source(&[("A_CERT_FILE_FILE", &path)])], &[]).as_deref(), Ok("known"));
    }
}
