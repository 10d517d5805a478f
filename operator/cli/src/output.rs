//! What people see: errors, progress, colours. Results go to standard output, everything else to standard error.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::safe::visible;

/// Prints a result and a line's end. A reader that has gone away (`| head`) is no error.
pub(crate) fn line(text: &str) -> std::io::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Tells something beside the result, on standard error, whatever others have put into it. Where that is closed or full there is nobody to tell.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", visible(text));
}

/// Prints an error with its causes, each once.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Transparent errors repeat the text of what they wrap.
        if !text.ends_with(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    tell(&format!("error: {text}"));
}

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
    Dim,
    Bold,
}

/// What standard output can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) colour: bool,
    /// More than ASCII.
    pub(crate) unicode: bool,
}

impl Style {
    /// For files and tests.
    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { colour: false, unicode: false };

    /// What standard output can show, given `--no-color` and the environment.
    pub(crate) fn of_stdout(no_colour: bool) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && !no_colour && variable("NO_COLOR").is_empty() && variable("TERM") != "dumb";
        // The first one that is set counts: locale(7).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable).into_iter().find(|value| !value.is_empty());
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        Self { colour, unicode: terminal && (locale.contains("utf-8") || locale.contains("utf8")) }
    }

    /// Text in a colour, or as it is.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Dim => 2,
            Colour::Bold => 1,
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// How to show objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table with more columns
    Wide,
    /// All of it as JSON
    Json,
    /// All of it as YAML
    Yaml,
    /// KIND/NAME only
    Name,
}

/// The program's name.
pub(crate) const NAME: &str = "provisioning";

/// How this program was called, for examples that people can paste.
pub(crate) fn program() -> &'static str {
    let own = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&own).file_stem().unwrap_or_default().to_os_string();
    if name == "kubectl-provisioning" { "kubectl provisioning" } else { NAME }
}

/// Writes to standard output. A reader that has gone (`| head`) is no error, and ends the program; a result that can't be
/// written (a full disk) is one.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(Exit::Done as i32);
    }
    tell(&format!("error: failed to write to standard output: {error}"));
    std::process::exit(Exit::Failed as i32);
}

/// What a command is doing: a spinner on a terminal, plain lines elsewhere.
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
}

/// A spinner has colours.
fn spins(terminal: bool, no_colour: bool, variable: Option<OsString>) -> bool {
    terminal && !no_colour && variable.is_none_or(|value| value.is_empty())
}

impl Progress {
    /// Given `--no-color`.
    pub(crate) fn new(no_colour: bool) -> Self {
        if !spins(std::io::stderr().is_terminal(), no_colour, std::env::var_os("NO_COLOR")) {
            return Self { spinner: None };
        }
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg} {elapsed:.dim}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self { spinner: Some(spinner) }
    }

    pub(crate) fn step(&self, message: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(message.to_owned()),
            None => tell(message),
        }
    }

    /// Ends with a line that stays.
    pub(crate) fn finish(self, message: &str) {
        if let Some(spinner) = self.spinner {
            spinner.finish_and_clear();
        }
        tell(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_spins_where_there_are_no_colours() {
        assert!(spins(true, false, None));
        assert!(spins(true, false, Some(OsString::new())));
        assert!(!spins(false, false, None));
        assert!(!spins(true, true, None));
        assert!(!spins(true, false, Some("1".into())));
    }
}
