//! What of the options may be another thing while clients are served.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;

use super::Options;
use super::credentials::Places;
use super::origin::Origins;
use super::visitor::Visitors;
use crate::access::Verifier;
use crate::limits::Counts;

/// Who is let in, and as whom.
#[derive(Debug)]
pub struct Terms {
    /// Whose pages may read.
    pub origins: Origins,
    /// Where clients show their credentials.
    pub places: Places,
    /// Whose credentials count.
    pub verifier: Verifier,
    /// Who speaks for whom.
    pub visitors: Arc<Visitors>,
}

impl Terms {
    /// Those of these options. `counts` and `runtime`: see [`Verifier::new`].
    pub fn new(options: &Options, counts: Arc<Counts>, runtime: Handle) -> Terms {
        Terms::with(options, Verifier::new(options.access.clone(), counts, runtime))
    }

    /// Those of other options: what was fetched or asked is known on, where that is the same. What happens in the background
    /// happens on the same runtime as before.
    pub fn next(&self, options: &Options) -> Terms {
        Terms::with(options, self.verifier.next(options.access.clone()))
    }

    fn with(options: &Options, verifier: Verifier) -> Terms {
        Terms {
            origins: Origins::new(&options.origins),
            places: options.places.clone(),
            verifier,
            visitors: Arc::new(options.visitors.clone()),
        }
    }
}

/// The terms of now, the same for all threads.
#[derive(Clone, Debug)]
pub struct Live(Arc<RwLock<Arc<Terms>>>);

impl Live {
    /// These, until others are put.
    pub fn new(terms: Terms) -> Live {
        Live(Arc::new(RwLock::new(Arc::new(terms))))
    }

    /// Those of now.
    pub fn terms(&self) -> Arc<Terms> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Others from now on. Who may read what they are asked for must be judged anew by the hub's revision, see
    /// [`crate::hub::Hub::revision`].
    pub fn put(&self, terms: Terms) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
    }
}

impl Default for Live {
    /// Nobody's pages, and nobody's credentials.
    fn default() -> Live {
        Live::letting(&[], Places::default())
    }
}

impl Live {
    /// Pages of these origins, and nobody's credentials.
    pub fn letting(origins: &[&str], places: Places) -> Live {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Live::new(Terms {
            origins: Origins::new(&origins),
            places,
            verifier: Verifier::default(),
            visitors: Arc::default(),
        })
    }
}
