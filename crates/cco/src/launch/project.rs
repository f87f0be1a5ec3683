//! The project and the branch that work is done on, from the folder it is done in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What requests are marked with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Project {
    /// The name of the repository's folder, else of the folder itself.
    pub(super) name: String,
    /// `None` outside of a repository, and where none is checked out.
    pub(super) branch: Option<String>,
    /// The call of `cco run` that it is done in: of several at a time, in one project, each knows what is its own.
    pub(super) run: Option<String>,
}

/// The names of the headers.
const HEADERS: [&str; 3] = ["x-cco-project", "x-cco-branch", RUN];
const RUN: &str = "x-cco-run";

/// Headers without those of a call of `cco run` around this one.
pub(super) fn not_of_a_run(headers: &str) -> String {
    let is = |line: &str, names: &[&str]| {
        line.split_once(':').is_some_and(|(name, _)| names.iter().any(|n| name.trim().eq_ignore_ascii_case(n)))
    };
    if !headers.lines().any(|line| is(line, &[RUN])) {
        return headers.to_owned();
    }
    headers.lines().filter(|line| !is(line, &HEADERS)).collect::<Vec<_>>().join("\n")
}

impl Project {
    /// Of a folder. Of a work tree beside the main one, the project is the main one's.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let name = |folder: &Path| Some(folder.file_name()?.to_string_lossy().into_owned());
        let Some((root, git)) = folder.ancestors().find_map(|at| Some((at, git_folder(at)?))) else {
            return Some(Self { name: name(folder)?, branch: None, run: None });
        };
        let head = std::fs::read_to_string(git.join("HEAD")).unwrap_or_default();
        let branch = head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned);
        // `….git/worktrees/NAME` of a further work tree, `….git/modules/NAME` of a repository within another.
        let main = git.ancestors().find(|at| at.file_name().is_some_and(|name| name == "worktrees"));
        let main = main.and_then(Path::parent).and_then(Path::parent);
        Some(Self { name: name(main.unwrap_or(root))?, branch, run: None })
    }

    /// As header lines. Other than visible ASCII is written as in URLs: nothing else travels safely in headers.
    pub(super) fn headers(&self) -> String {
        let values = [Some(&self.name).filter(|name| !name.is_empty()), self.branch.as_ref(), self.run.as_ref()];
        let lines = HEADERS.iter().zip(values).filter_map(|(name, value)| Some(format!("{name}: {}", visible(value?))));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The folder of a repository's own files, if this is its root.
fn git_folder(folder: &Path) -> Option<PathBuf> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = std::fs::read_to_string(&git).ok()?;
    let named = text.lines().find_map(|line| line.strip_prefix("gitdir: "))?;
    Some(folder.join(named.trim()))
}

fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x20 | 0x7f.. => {
                // A `String` takes everything.
                let _ = write!(visible, "%{byte:02X}");
            }
            byte => visible.push(char::from(byte)),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_deep_in_a_repository_belongs_to_it() {
        let folder = folder(&[("web/.git/HEAD", "ref: refs/heads/fix/ä\n"), ("web/src/a.rs", "")]);
        let project = Project::of(&folder.path().join("web/src")).unwrap();
        assert_eq!(project, Project { name: "web".into(), branch: Some("fix/ä".into()), run: None });
        assert_eq!(project.headers(), "x-cco-project: web\nx-cco-branch: fix/%C3%A4");
    }

    #[test]
    fn a_further_work_tree_belongs_to_the_main_one() {
        let folder = folder(&[("web/.git/HEAD", "ref: refs/heads/main\n")]);
        let own = folder.path().join("web/.git/worktrees/other");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("HEAD"), "0123456789abcdef\n").unwrap();
        let tree = folder.path().join("elsewhere");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join(".git"), format!("gitdir: {}\n", own.display())).unwrap();
        assert_eq!(Project::of(&tree), Some(Project { name: "web".into(), branch: None, run: None }));
    }

    #[test]
    fn without_a_repository_the_folder_is_the_project() {
        let folder = folder(&[("my notes/a", "")]);
        let project = Project::of(&folder.path().join("my notes")).unwrap();
        assert_eq!((project.headers().as_str(), &project.branch), ("x-cco-project: my%20notes", &None));
        assert_eq!(Project::of(Path::new("/")), None);
        let run = Project { name: String::new(), branch: None, run: Some("1f-2".into()) };
        assert_eq!(run.headers(), "x-cco-run: 1f-2", "who works nowhere has a run");
    }

    #[test]
    fn of_two_runs_one_within_the_other_the_inner_one_counts() {
        let own = "x-team: a\nX-Cco-Project: mine";
        assert_eq!(not_of_a_run(own), own, "what somebody wrote stays");
        assert_eq!(not_of_a_run("x-team: a\nx-cco-project: web\nx-cco-branch: b\nx-cco-run: 1f-2"), "x-team: a");
    }
}
