//! A server that is asked again and again what it knows of others.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Doubt;
use crate::upstream::{
    Endpoint,
    feed::start::log_in,
    link::{Link, LinkError},
};

/// How often each server is asked: what it knows of a failover is known here a moment later.
const INTERVAL: Duration = Duration::from_millis(500);

/// And never sooner, whatever the doubts.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// How long it may take to answer, connecting included. Others are asked meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server said counts for this long after it has gone silent.
pub(super) const MEMORY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Asked {
    pub endpoint: Endpoint,
    link: Option<Link>,
}

impl Asked {
    pub fn new(endpoint: Endpoint) -> Asked {
        Asked { endpoint, link: None }
    }

    /// Puts a question, over the connection of last time or a new one.
    pub async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut Link) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let asked = async {
            let link = match self.link.take() {
                Some(link) => link,
                None => {
                    let mut link = Link::connect(&self.endpoint).await?;
                    log_in(&mut link, &self.endpoint).await?;
                    link
                }
            };
            question(self.link.insert(link)).await
        };
        let answer = timeout(PATIENCE, asked)
            .await
            .unwrap_or(Err(LinkError::Silent(PATIENCE)));
        if !matches!(answer, Ok(_) | Err(LinkError::Refused { .. })) {
            self.link = None;
        }
        answer
    }
}

/// Waits until it is time to ask again, or somebody doubts what is known.
pub(super) async fn pause(doubt: &Doubt) {
    sleep(SHORTEST_INTERVAL).await;
    // A doubt is then as good as time.
    let _ = timeout(INTERVAL - SHORTEST_INTERVAL, doubt.is_cast()).await;
}
