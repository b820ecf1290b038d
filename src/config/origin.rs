//! Where each value of a config came from.

use std::fmt;
use std::path::PathBuf;

/// A value that is not the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The option, as `server.listen`.
    pub option: String,
    /// The value as one would write it; of a secret only that it is one.
    pub value: String,
    /// Where it came from.
    pub from: From,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// A line of a file; where the text there names variables of the environment, those too.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Its line, the first being 1.
        line: usize,
        /// The variables that were put in.
        variables: Vec<String>,
    },
    /// A variable of the environment that counts where the file says nothing.
    Environment(&'static str),
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::File { path, line, variables } => {
                write!(f, "{}:{line}", path.display())?;
                for variable in variables {
                    write!(f, ", ${{{variable}}}")?;
                }
                Ok(())
            }
            From::Environment(name) => write!(f, "the environment, {name}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.option, self.value, self.from)
    }
}
