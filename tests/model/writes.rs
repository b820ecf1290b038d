//! What writers write: every type and every command that changes a key, each write leaving its stamp in the value.

use super::keys::KEYS;
use super::rng::Rng;

/// One write: commands that reach the server together. In their arguments `#@` stands for the write's stamp, `#-` for that of the
/// writer's write before, and `@` alone for the stamp's number.
#[derive(Clone, Debug)]
pub struct Write {
    pub commands: Vec<Vec<Vec<u8>>>,
    /// The keys (places in [`KEYS`]) whose values bear the stamp afterwards.
    pub stamped: Vec<usize>,
    /// The keys that are gone afterwards, or soon, or no longer sure to stay.
    pub touched: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    String,
    Hash,
    List,
    Set,
    Sorted,
    Stream,
}

const KINDS: [Kind; 6] = [
    Kind::String,
    Kind::Hash,
    Kind::List,
    Kind::Set,
    Kind::Sorted,
    Kind::Stream,
];

/// Bytes of a value that is large enough to fill a socket with a few of them.
const FAT: usize = 48 << 10;

/// What one writer writes. It alone writes its keys, so that the order of their values is the order of its writes.
pub struct Writer {
    keys: Vec<usize>,
    /// What each key holds, as far as a generator can know.
    kinds: Vec<Option<Kind>>,
    fat: bool,
}

macro_rules! command {
    ($($word:expr),+) => { vec![$($word.to_vec()),+] };
}

impl Writer {
    pub fn new(keys: Vec<usize>, fat: bool) -> Writer {
        let kinds = vec![None; keys.len()];
        Writer { keys, kinds, fat }
    }

    /// A write that every subscriber of the key must hear of.
    pub fn plain(&mut self, at: usize) -> Write {
        let at = at % self.keys.len();
        self.kinds[at] = Some(Kind::String);
        let key = &*KEYS[self.keys[at]].bytes;
        Write {
            commands: vec![command![b"SET", key, b"#@"]],
            stamped: vec![self.keys[at]],
            touched: vec![],
        }
    }

    /// Several keys at once, so that a batch of reads brings them together.
    pub fn burst(&mut self, rng: &mut Rng) -> Write {
        let mut commands = vec![command![b"MULTI"]];
        let mut stamped = Vec::new();
        for _ in 0..rng.between(4..12) {
            let at = rng.index(self.keys.len());
            self.kinds[at] = Some(Kind::String);
            commands.push(command![b"SET", &*KEYS[self.keys[at]].bytes, b"#@ in a transaction"]);
            stamped.push(self.keys[at]);
        }
        commands.push(command![b"EXEC"]);
        Write {
            commands,
            stamped,
            touched: vec![],
        }
    }

    /// Any write.
    pub fn any(&mut self, rng: &mut Rng) -> Write {
        let at = rng.index(self.keys.len());
        match rng.between(0..100) {
            0..=49 => self.change(at, rng),
            50..=57 => self.create(at, rng),
            58..=63 => self.gone(at, rng),
            64..=75 => self.volatile(at, rng),
            76..=80 => self.moved(at, rng),
            81..=85 => self.burst(rng),
            86..=89 => self.transaction(at, rng),
            90..=94 => self.script(at, rng),
            _ => self.many(at, rng),
        }
    }

    fn key(&self, at: usize) -> &'static [u8] {
        &KEYS[self.keys[at]].bytes
    }

    fn one(&self, at: usize, command: Vec<Vec<u8>>) -> Write {
        Write {
            commands: vec![command],
            stamped: vec![self.keys[at]],
            touched: vec![],
        }
    }

    /// The key anew, of another type perhaps.
    fn create(&mut self, at: usize, rng: &mut Rng) -> Write {
        let key = self.key(at);
        let kind = rng.pick(&KINDS);
        self.kinds[at] = Some(kind);
        let fill = match kind {
            Kind::String => command![b"SET", key, b"#@"],
            Kind::Hash => command![b"HSET", key, b"stamp", b"#@", b"\xfe", b"\xff", b"base64:x", b"1"],
            Kind::List => command![b"RPUSH", key, b"#@", b"\x00\xff", b"last"],
            Kind::Set => command![b"SADD", key, b"#@", b"\xff\xfe", b"b", b"a"],
            Kind::Sorted => command![b"ZADD", key, b"@", b"#@", b"inf", b"top", b"1.5", b"low"],
            Kind::Stream => command![b"XADD", key, b"*", b"stamp", b"#@", b"stamp", b"#@ again"],
        };
        Write {
            commands: vec![command![b"MULTI"], command![b"DEL", key], fill, command![b"EXEC"]],
            stamped: vec![self.keys[at]],
            touched: vec![],
        }
    }

    /// The key changed in the way of its type.
    fn change(&mut self, at: usize, rng: &mut Rng) -> Write {
        let Some(kind) = self.kinds[at] else {
            return self.create(at, rng);
        };
        let key = self.key(at);
        let both = |first: Vec<Vec<u8>>, second: Vec<Vec<u8>>| Write {
            commands: vec![command![b"MULTI"], first, second, command![b"EXEC"]],
            stamped: vec![self.keys[at]],
            touched: vec![],
        };
        let variant = rng.between(0..3);
        match (kind, variant) {
            (Kind::String, 0) => self.one(at, command![b"APPEND", key, b" #@"]),
            (Kind::String, 1) if self.fat => {
                let mut fat = b"#@ ".to_vec();
                fat.resize(FAT, b'x');
                self.one(at, command![b"SET", key, fat])
            }
            (Kind::String, 1) => self.one(at, command![b"GETSET", key, b"\xff#@"]),
            (Kind::String, _) => self.one(at, command![b"SET", key, b"#@"]),
            (Kind::Hash, 0) => self.one(at, command![b"HSET", key, b"stamp", b"#@", b"more", b"#@"]),
            (Kind::Hash, 1) => both(command![b"HDEL", key, b"more"], command![b"HSET", key, b"stamp", b"#@"]),
            (Kind::Hash, _) => both(
                command![b"HINCRBY", key, b"count", b"1"],
                command![b"HSET", key, b"stamp", b"#@"],
            ),
            (Kind::List, 0) => self.one(at, command![b"LPUSH", key, b"#@"]),
            (Kind::List, 1) => both(command![b"LPUSH", key, b"#@"], command![b"LTRIM", key, b"0", b"4"]),
            // Twice, because the list may have expired meanwhile.
            (Kind::List, _) => both(command![b"LPUSH", key, b"#@", b"#@"], command![b"RPOP", key]),
            (Kind::Set, 0) => self.one(at, command![b"SADD", key, b"#@", b"\x00"]),
            (Kind::Set, _) => both(
                command![b"SADD", key, b"#@"],
                command![b"SREM", key, b"#-", b"a", b"\x00"],
            ),
            (Kind::Sorted, 0) => self.one(at, command![b"ZADD", key, b"@", b"#@", b"-inf", b"bottom"]),
            (Kind::Sorted, 1) => both(
                command![b"ZADD", key, b"@", b"#@"],
                command![b"ZREMRANGEBYRANK", key, b"0", b"-6"],
            ),
            (Kind::Sorted, _) => both(
                command![b"ZINCRBY", key, b"0.25", b"low"],
                command![b"ZADD", key, b"@", b"#@"],
            ),
            (Kind::Stream, 0) => self.one(at, command![b"XADD", key, b"*", b"stamp", b"#@", b"\xff", b"\xfe"]),
            (Kind::Stream, 1) => self.one(at, command![b"XADD", key, b"MAXLEN", b"3", b"*", b"stamp", b"#@"]),
            (Kind::Stream, _) => both(
                command![b"XADD", key, b"*", b"stamp", b"#@"],
                command![b"XTRIM", key, b"MAXLEN", b"2"],
            ),
        }
    }

    fn gone(&mut self, at: usize, rng: &mut Rng) -> Write {
        self.kinds[at] = None;
        let command: &[u8] = if rng.percent(50) { b"DEL" } else { b"UNLINK" };
        Write {
            commands: vec![command![command, self.key(at)]],
            stamped: vec![],
            touched: vec![self.keys[at]],
        }
    }

    /// Times of expiry: set, prolonged, shortened, taken away, past.
    fn volatile(&mut self, at: usize, rng: &mut Rng) -> Write {
        let key = self.key(at);
        let soon = rng.between(20..250).to_string().into_bytes();
        let (command, stamped) = match rng.between(0..7) {
            0 => (command![b"PEXPIRE", key, soon], false),
            1 => (command![b"EXPIRE", key, b"100"], false),
            2 => (command![b"PERSIST", key], false),
            3 => (command![b"EXPIREAT", key, b"1"], false),
            4 => (command![b"SET", key, b"#@", b"PX", soon], true),
            5 => (command![b"SETEX", key, b"100", b"#@"], true),
            _ => (command![b"PSETEX", key, soon, b"#@"], true),
        };
        if stamped {
            self.kinds[at] = Some(Kind::String);
        }
        Write {
            commands: vec![command],
            // What expires soon may never be seen.
            stamped: vec![],
            touched: vec![self.keys[at]],
        }
    }

    /// A value that comes from another key.
    fn moved(&mut self, at: usize, rng: &mut Rng) -> Write {
        let to = (at + 1 + rng.index(self.keys.len() - 1)) % self.keys.len();
        let (from_key, to_key) = (self.key(at), self.key(to));
        let mut commands = vec![command![b"MULTI"], command![b"DEL", from_key]];
        let kind = if rng.percent(50) { Kind::String } else { Kind::Hash };
        commands.push(match kind {
            Kind::String => command![b"SET", from_key, b"#@"],
            _ => command![b"HSET", from_key, b"stamp", b"#@"],
        });
        let copied = rng.percent(50);
        commands.push(match copied {
            true => command![b"COPY", from_key, to_key, b"REPLACE"],
            false => command![b"RENAME", from_key, to_key],
        });
        commands.push(command![b"EXEC"]);
        self.kinds[at] = copied.then_some(kind);
        self.kinds[to] = Some(kind);
        Write {
            commands,
            stamped: vec![self.keys[to]],
            touched: vec![self.keys[at]],
        }
    }

    /// The same key several times at once.
    fn transaction(&mut self, at: usize, rng: &mut Rng) -> Write {
        let key = self.key(at);
        self.kinds[at] = Some(Kind::String);
        let mut commands = vec![
            command![b"MULTI"],
            command![b"SET", key, b"in between"],
            command![b"DEL", key],
            command![b"SET", key, b"#@"],
        ];
        if rng.percent(50) {
            commands.push(command![b"EXPIRE", key, b"200"]);
        }
        commands.push(command![b"EXEC"]);
        Write {
            commands,
            stamped: vec![self.keys[at]],
            touched: vec![],
        }
    }

    fn script(&mut self, at: usize, rng: &mut Rng) -> Write {
        let to = (at + 1 + rng.index(self.keys.len() - 1)) % self.keys.len();
        (self.kinds[at], self.kinds[to]) = (Some(Kind::String), Some(Kind::Hash));
        let script = b"redis.call('SET', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2]) redis.call('HSET', KEYS[2], 'stamp', ARGV[1])";
        Write {
            commands: vec![command![
                b"EVAL",
                script,
                b"2",
                self.key(at),
                self.key(to),
                b"#@ by a script"
            ]],
            stamped: vec![self.keys[at], self.keys[to]],
            touched: vec![],
        }
    }

    fn many(&mut self, at: usize, rng: &mut Rng) -> Write {
        let mut command = command![b"MSET"];
        let mut stamped = Vec::new();
        for step in 0..rng.between(2..6) as usize {
            let at = (at + step) % self.keys.len();
            self.kinds[at] = Some(Kind::String);
            command.push(self.key(at).to_vec());
            command.push(b"#@ of many".to_vec());
            stamped.push(self.keys[at]);
        }
        Write {
            commands: vec![command],
            stamped,
            touched: vec![],
        }
    }
}

impl Write {
    /// The commands with the stamps put in.
    pub fn commands(&self, stamp: u64, before: u64) -> Vec<Vec<Vec<u8>>> {
        let fill = |argument: &Vec<u8>| match &**argument {
            b"@" => stamp.to_string().into_bytes(),
            argument => {
                let filled = replace(argument, b"#@", format!("#{stamp}").as_bytes());
                replace(&filled, b"#-", format!("#{before}").as_bytes())
            }
        };
        let commands = self.commands.iter();
        commands.map(|command| command.iter().map(fill).collect()).collect()
    }
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len() + to.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}
