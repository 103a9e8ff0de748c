//! What to try next: commands that can be pasted into a shell as they are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Three commands: the node again over the same directory, and two that look into it from a second
/// shell. `program` and `data_dir` are absolute, so that the commands work from anywhere.
pub(super) fn commands(program: &Path, data_dir: &Path, results: &str, source: &str) -> [String; 3] {
    let program = quoted(program.as_os_str());
    [
        format!("{program} serve --data-dir {}", quoted(data_dir.as_os_str())),
        format!("{program} consume {results} -n 5"),
        format!("{program} topic describe {source}"),
    ]
}

/// A word as a POSIX shell reads it back: bare if it is harmless, else in single quotes.
///
/// A name that is not UTF-8 cannot be printed as itself; its bytes come as `$'\xff'`, which bash, zsh
/// and ksh understand.
fn quoted(word: &OsStr) -> String {
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(|byte| harmless(&byte)) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let escaped: String = word
                .as_bytes()
                .iter()
                .map(|byte| match byte {
                    b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                    b' '..=b'~' => char::from(*byte).to_string(),
                    _ => format!("\\x{byte:02x}"),
                })
                .collect();
            format!("$'{escaped}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_every_word_back() {
        let words: [&[u8]; 9] = [
            b"/usr/bin/logmill",
            b"",
            b"with space",
            b"it's",
            b"$HOME `id` \"x\" \\ !",
            "größe".as_bytes(),
            b"-n;ls",
            b"a\nb\tc",
            b"not utf-8 \xff'\\",
        ];
        for word in words {
            let script = format!("printf %s {}", quoted(OsStr::from_bytes(word)));
            let output = Command::new("bash").args(["-c", &script]).output().expect("there is a shell");
            assert_eq!(output.stdout, word, "{script}");
        }
    }

    #[test]
    fn harmless_words_stay_bare() {
        let [serve, ..] = commands(Path::new("/bin/logmill"), Path::new("/data/a-1"), "r", "s");
        assert_eq!(serve, "/bin/logmill serve --data-dir /data/a-1");
    }
}
