//! What a feed is told of where its server is.

use std::future::pending;

use tokio::sync::watch;

use crate::upstream::{Address, Endpoint};

/// Where a feed's server is.
#[derive(Clone, Debug)]
pub enum Location {
    /// At the address of the endpoint.
    Fixed,
    /// Wherever it is found to be; None while nobody knows.
    Found(watch::Receiver<Option<Address>>),
}

/// The two ends of what is found.
pub(super) fn found() -> (watch::Sender<Option<Address>>, Location) {
    let (sender, receiver) = watch::channel(None);
    (sender, Location::Found(receiver))
}

impl Location {
    /// Whether the server must be a primary: it was found because it was said to be one.
    pub(in crate::upstream) fn is_of_primary(&self) -> bool {
        matches!(self, Location::Found(_))
    }

    /// Where to connect now; waits until somebody knows.
    pub(in crate::upstream) async fn find(&mut self, endpoint: &Endpoint) -> Endpoint {
        match self {
            Location::Fixed => endpoint.clone(),
            Location::Found(found) => match found
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|found| found.clone())
            {
                Some(address) => Endpoint {
                    address,
                    ..endpoint.clone()
                },
                // Nobody looks any more.
                None => pending().await,
            },
        }
    }

    /// Waits until the server is elsewhere, or nowhere, than where it was last found.
    pub(in crate::upstream) async fn moved(&mut self) {
        if let Location::Found(found) = self
            && found.changed().await.is_ok()
        {
            return;
        }
        pending().await
    }
}

/// Says where the server is; those who know already are left alone.
pub(super) fn tell(found: &watch::Sender<Option<Address>>, address: Option<Address>) -> bool {
    found.send_if_modified(|known| {
        let new = *known != address;
        *known = address;
        new
    })
}
