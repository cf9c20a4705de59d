//! Pages of the documentation as data: which blocks a test runs, what they must print, and where links lead.
//!
//! A fenced block says in its info string what becomes of it:
//!
//! | info string | meaning |
//! |---|---|
//! | `console lab` | each `$ ` line runs on the lab's host, in order; the lines below it are fragments of its output |
//! | `console lab client` | the same, in the client's network namespace |
//! | `... wait` | repeated until the fragments appear; for commands that only look |
//! | `... fails` | the command must fail |
//! | `yaml lab` | applied with `kubectl apply -f -` |
//! | `yaml values` | rendered by the chart |
//! | `console untested REASON`, `yaml untested REASON` | nobody runs it, because |
//! | `text` | a picture |
//!
//! In expected output runs of blanks are one blank, and `...` stands for anything.

use std::collections::BTreeSet;
use std::fmt;

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// What becomes of it.
    pub kind: Kind,
}

/// What becomes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands for a shell.
    Console { commands: Vec<Command>, place: Place, wait: bool, fails: bool },
    /// A manifest to apply.
    Apply { yaml: String },
    /// Values for the chart.
    Values { yaml: String },
    /// Not run; the reason is never empty.
    Untested { reason: String },
    /// Not a command.
    Plain,
}

/// Where commands run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The lab's host: kubectl, helm.
    Host,
    /// The client's network namespace: curl, arping.
    Client,
}

/// One command and what it must print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Line in the page, from 1.
    pub line: usize,
    /// For a shell; several lines when a line ends in a backslash.
    pub text: String,
    /// Fragments in the order in which they appear.
    pub expected: Vec<String>,
}

/// A link to another place of the repository or the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Line in the page, from 1.
    pub line: usize,
    /// As written.
    pub target: String,
}

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for PageError {}

/// The fenced blocks of a Markdown page, in order.
///
/// # Errors
/// An unknown info string, a test without a command, a missing reason, a fence that never closes.
pub fn blocks(page: &str) -> Result<Vec<Block>, PageError> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((start, opening)) = lines.next() {
        let Some(info) = opening.strip_prefix("```") else { continue };
        let mut body = Vec::new();
        let closed = lines.by_ref().any(|(index, text)| {
            let end = text == "```";
            if !end {
                body.push((index + 1, text));
            }
            end
        });
        if !closed {
            return Err(error(start + 1, "this block never ends"));
        }
        found.push(Block { line: start + 1, kind: kind(start + 1, info, &body)? });
    }
    Ok(found)
}

/// Whether the fragments occur in the output, each on a line of its own and in order.
///
/// # Errors
/// The first fragment that is missing.
pub fn missing(output: &str, expected: &[String]) -> Result<(), String> {
    let mut lines = output.lines().map(squeeze);
    for fragment in expected {
        let wanted = squeeze(fragment);
        if wanted != "..." && !lines.any(|line| fits(&line, &wanted)) {
            return Err(fragment.clone());
        }
    }
    Ok(())
}

/// The links of a page that stay inside the repository; nothing in code is a link.
#[must_use]
pub fn links(page: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, text) in prose(page) {
        let text = without_code(text);
        let mut rest = text.as_str();
        while let Some(at) = rest.find("](") {
            rest = rest.get(at + 2..).unwrap_or_default();
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            let external = ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme));
            if !external {
                found.push(Link { line, target: target.to_owned() });
            }
        }
    }
    found
}

/// The anchors of a page's headings, as a Markdown renderer makes them.
#[must_use]
pub fn anchors(page: &str) -> BTreeSet<String> {
    prose(page)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, title)| {
            title
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    '-' | '_' => Some(c),
                    _ => c.is_alphanumeric().then_some(c),
                })
                .collect()
        })
        .collect()
}

fn kind(line: usize, info: &str, body: &[(usize, &str)]) -> Result<Kind, PageError> {
    let (language, rest) = info.trim().split_once(' ').unwrap_or((info.trim(), ""));
    let (word, options) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    let text = || body.iter().map(|(_, text)| format!("{text}\n")).collect::<String>();
    match (language, word) {
        ("text", "") => Ok(Kind::Plain),
        ("console" | "yaml", "untested") if options.trim().is_empty() => {
            Err(error(line, "say why nobody runs it: ```console untested REASON"))
        }
        ("console" | "yaml", "untested") => Ok(Kind::Untested { reason: options.trim().to_owned() }),
        ("yaml", "lab") if options.is_empty() => Ok(Kind::Apply { yaml: text() }),
        ("yaml", "values") if options.is_empty() => Ok(Kind::Values { yaml: text() }),
        ("console", "lab") => console(line, options, body),
        _ => Err(error(
            line,
            &format!(
                "`{info}` is none of: console lab [client] [wait] [fails], yaml lab, yaml values, console untested \
                 REASON, yaml untested REASON, text"
            ),
        )),
    }
}

fn console(line: usize, options: &str, body: &[(usize, &str)]) -> Result<Kind, PageError> {
    let (mut place, mut wait, mut fails) = (Place::Host, false, false);
    for option in options.split_whitespace() {
        match option {
            "client" => place = Place::Client,
            "wait" => wait = true,
            "fails" => fails = true,
            other => return Err(error(line, &format!("unknown option `{other}`: client, wait or fails"))),
        }
    }
    let mut commands: Vec<Command> = Vec::new();
    let mut continued = false;
    for &(number, text) in body {
        let command = commands.last_mut();
        if let Some(text) = text.strip_prefix("$ ") {
            commands.push(Command { line: number, text: text.to_owned(), expected: Vec::new() });
        } else if let (true, Some(command)) = (continued, command) {
            command.text.push('\n');
            command.text.push_str(text);
        } else if let Some(command) = commands.last_mut() {
            command.expected.extend((!text.trim().is_empty()).then(|| text.to_owned()));
        } else {
            return Err(error(number, "output before the first command; commands start with `$ `"));
        }
        continued = text.ends_with('\\') && (continued || text.starts_with("$ "));
    }
    if commands.is_empty() {
        return Err(error(line, "no command in it: commands start with `$ `"));
    }
    if wait && commands.iter().any(|command| command.expected.is_empty()) {
        return Err(error(line, "`wait` without expected output waits for nothing"));
    }
    Ok(Kind::Console { commands, place, wait, fails })
}

/// The lines outside fenced blocks, numbered from 1.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    page.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// The line without its `code`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the parts between `...` occur in the line, in order.
fn fits(line: &str, wanted: &str) -> bool {
    let mut rest = line;
    wanted.split("...").map(str::trim).all(|part| match rest.find(part) {
        Some(at) => {
            rest = rest.get(at + part.len()..).unwrap_or_default();
            true
        }
        None => false,
    })
}

fn error(line: usize, message: &str) -> PageError {
    PageError { line, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(page: &str) -> Kind {
        let mut found = blocks(page).unwrap();
        assert_eq!(found.len(), 1);
        found.remove(0).kind
    }

    #[test]
    fn commands_and_what_they_print_are_told_apart() {
        let page = "words\n```console lab wait\n$ kubectl get \\\n    svc\nNAME  TYPE\n\n$ true\nx\n```\n";
        let Kind::Console { commands, place, wait, fails } = only(page) else { panic!("not a console") };
        assert_eq!((place, wait, fails), (Place::Host, true, false));
        assert_eq!(commands.len(), 2);
        assert_eq!(commands[0].text, "kubectl get \\\n    svc");
        assert_eq!(commands[0].line, 3);
        assert_eq!(commands[0].expected, ["NAME  TYPE"]);
    }

    #[test]
    fn manifests_and_values_keep_their_text() {
        assert_eq!(only("```yaml lab\na:\n  b: 1\n```"), Kind::Apply { yaml: "a:\n  b: 1\n".into() });
        assert_eq!(only("```yaml values\na: 1\n```"), Kind::Values { yaml: "a: 1\n".into() });
        assert_eq!(only("```text\n$ not a command\n```"), Kind::Plain);
    }

    #[test]
    fn a_block_that_nobody_runs_says_why() {
        let reason = "needs a registry".to_owned();
        assert_eq!(only("```console untested needs a registry\n$ x\n```"), Kind::Untested { reason });
        assert_eq!(blocks("```console untested\n$ x\n```").unwrap_err().line, 1);
    }

    #[test]
    fn what_would_pass_by_not_running_is_an_error() {
        for page in [
            "```console lab\nno command\n```",
            "```console lab\n```",
            "```console lab wait\n$ true\n```",
            "```console lab later\n$ true\n```",
            "```console\n$ true\n```",
            "```bash\ntrue\n```",
            "```\ntrue\n```",
            "```console lab\n$ true\n",
        ] {
            blocks(page).unwrap_err();
        }
    }

    #[test]
    fn fragments_are_found_in_order_with_any_blanks() {
        let output = "NAME        EXTERNAL-IP\nweb         172.25.7.100   80:30082/TCP\n";
        let wanted = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(missing(output, &wanted(&["NAME EXTERNAL-IP", "web 172.25.7.100"])), Ok(()));
        assert_eq!(missing(output, &wanted(&["...", "web ... 80:...TCP"])), Ok(()));
        assert_eq!(missing(output, &wanted(&["web", "NAME"])), Err("NAME".to_owned()));
        assert_eq!(missing(output, &wanted(&["web ... 443"])), Err("web ... 443".to_owned()));
    }

    #[test]
    fn links_leave_out_code_and_the_web() {
        let page = "see [map](docs/map.md#rooms) and [web](https://example.com)\n`[x](y)`\n```text\n[z](z)\n```\n[b](b)";
        let targets: Vec<_> = links(page).into_iter().map(|link| (link.line, link.target)).collect();
        assert_eq!(targets, [(1, "docs/map.md#rooms".to_owned()), (6, "b".to_owned())]);
    }

    #[test]
    fn anchors_are_made_from_headings() {
        let anchors = anchors("# The map\n## `kubectl patina why`: reasons\n```text\n# not this\n```\n");
        assert_eq!(anchors, BTreeSet::from(["the-map".into(), "kubectl-patina-why-reasons".into()]));
    }
}
