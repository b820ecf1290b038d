//! How much clients may take at once and in a time, and what is counted for that.

/// What clients may take together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections in all.
    pub connections: usize,
    /// Connections, or streams where a proxy stands in front, of one address; of IPv6 of one /64.
    pub connections_per_address: usize,
    /// Streams of one token's subject.
    pub connections_per_subject: usize,
    /// Connections and further requests that one address may begin.
    pub connects: Rate,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a time in which nothing happened.
    pub burst: u32,
}

impl Default for Options {
    /// What counts where a config says nothing.
    fn default() -> Options {
        Options {
            // An idle one costs below 1 KiB here and a few in the kernel, so that even a small machine has the memory.
            connections: 50_000,
            // Carriers put about 64 subscribers behind one address, offices more; three tabs each.
            connections_per_address: 200,
            // A person has some devices with some tabs each; a token that was passed around has thousands.
            connections_per_subject: 100,
            connects: Rate {
                per_second: 20,
                // After a restart all who were there come back at once.
                burst: 200,
            },
        }
    }
}
