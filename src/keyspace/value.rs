//! What a read of a key gave.

use bytes::Bytes;

/// The value of a key, whatever its type, as bytes.
///
/// Servers give the fields of a hash and the members of a set in any order, and may give the same ones in another
/// order next time: whoever renders or compares them sorts them first (see [`Value::sort`]).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The key does not exist.
    Absent,
    /// A string.
    String(Bytes),
    /// Field and value, in no order.
    Hash(Vec<(Bytes, Bytes)>),
    /// Items, from head to tail.
    List(Vec<Bytes>),
    /// Members, in no order.
    Set(Vec<Bytes>),
    /// Member and score, by ascending score, then by member.
    SortedSet(Vec<(Bytes, f64)>),
    /// Entries, oldest first.
    Stream(Vec<StreamEntry>),
    /// The value is larger than what may be read; nothing of it was.
    TooLarge(Size),
}

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// `<milliseconds>-<sequence>`, as the server writes it.
    pub id: Bytes,
    /// Field and value in the order they were added; a name may come more than once.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// How large a value was that was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Length of a string, or what the parts of another value come to.
    Bytes(u64),
    /// Number of fields, items, members or entries.
    Elements(u64),
}

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Read with GET.
    String,
    /// Read with HGETALL or HMGET.
    Hash,
    /// Read with LRANGE.
    List,
    /// Read with SMEMBERS.
    Set,
    /// Read with ZRANGE … WITHSCORES.
    SortedSet,
    /// Read with XRANGE.
    Stream,
}

/// Bytes of a score, whatever it takes on the wire.
const SCORE: usize = size_of::<f64>();

/// Bytes that an element of a reply takes in memory while it is read, beside its own: 104 decoded, and up to 48 in the value that
/// is made of it.
pub const ELEMENT: usize = 160;

/// The same of a set or hash, whose reply is a table up to 2.3 times as large as what is in it.
pub const HASHED: usize = 288;

impl Value {
    /// Bytes of all names, items, members and scores together, without what holds them; 0 for what is absent or was
    /// not read.
    pub fn size_in_bytes(&self) -> usize {
        match self {
            Value::Absent | Value::TooLarge(_) => 0,
            Value::String(text) => text.len(),
            Value::Hash(fields) => pairs_in_bytes(fields),
            Value::List(items) | Value::Set(items) => items.iter().map(Bytes::len).sum(),
            Value::SortedSet(members) => members.iter().map(|(member, _)| member.len() + SCORE).sum(),
            Value::Stream(entries) => entries.iter().map(|e| e.id.len() + pairs_in_bytes(&e.fields)).sum(),
        }
    }

    /// Bytes of memory that reading it takes.
    pub fn size_in_memory(&self) -> usize {
        let elements = match self {
            Value::Absent | Value::TooLarge(_) | Value::String(_) => 0,
            Value::Hash(fields) => 2 * HASHED * fields.len(),
            Value::List(items) => ELEMENT * items.len(),
            Value::Set(members) => HASHED * members.len(),
            // A list of the two each.
            Value::SortedSet(members) => 3 * ELEMENT * members.len(),
            // A list of the id and of a list of the fields each.
            Value::Stream(entries) => entries.iter().map(|e| (3 + 2 * e.fields.len()) * ELEMENT).sum(),
        };
        self.size_in_bytes() + elements
    }

    /// Whether the key does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Value::Absent)
    }

    /// The type of the key, as far as the value tells: neither an absent nor an unread one does.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Value::Absent | Value::TooLarge(_) => None,
            Value::String(_) => Some(Kind::String),
            Value::Hash(_) => Some(Kind::Hash),
            Value::List(_) => Some(Kind::List),
            Value::Set(_) => Some(Kind::Set),
            Value::SortedSet(_) => Some(Kind::SortedSet),
            Value::Stream(_) => Some(Kind::Stream),
        }
    }

    /// Brings what the server gives in any order into the one order of its bytes, so that equal values are equal
    /// member for member.
    pub fn sort(&mut self) {
        match self {
            Value::Hash(fields) => fields.sort_unstable(),
            Value::Set(members) => members.sort_unstable(),
            _ => {}
        }
    }
}

fn pairs_in_bytes(pairs: &[(Bytes, Bytes)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_size_counts_names_values_and_scores() {
        assert_eq!(Value::Absent.size_in_bytes(), 0);
        assert_eq!(Value::TooLarge(Size::Bytes(9)).size_in_bytes(), 0);
        assert_eq!(Value::String(b("four")).size_in_bytes(), 4);
        assert_eq!(
            Value::Hash(vec![(b("a"), b("12")), (b("bc"), b(""))]).size_in_bytes(),
            5
        );
        assert_eq!(Value::List(vec![b("a"), b("bc")]).size_in_bytes(), 3);
        assert_eq!(Value::SortedSet(vec![(b("ab"), 1.0)]).size_in_bytes(), 10);
        let entry = StreamEntry {
            id: b("1-0"),
            fields: vec![(b("f"), b("v"))],
        };
        assert_eq!(Value::Stream(vec![entry]).size_in_bytes(), 5);
    }

    #[test]
    fn sorting_makes_what_has_no_order_equal() {
        let mut one = Value::Hash(vec![(b("b"), b("2")), (b("a"), b("1"))]);
        let mut other = Value::Hash(vec![(b("a"), b("1")), (b("b"), b("2"))]);
        one.sort();
        other.sort();
        assert_eq!(one, other);

        let mut list = Value::List(vec![b("z"), b("a")]);
        list.sort();
        assert_eq!(list, Value::List(vec![b("z"), b("a")]));
    }

    #[test]
    fn only_a_value_that_was_read_tells_its_kind() {
        assert_eq!(Value::Absent.kind(), None);
        assert_eq!(Value::TooLarge(Size::Elements(1)).kind(), None);
        assert_eq!(Value::Set(vec![]).kind(), Some(Kind::Set));
    }
}
