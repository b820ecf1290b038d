use super::*;

fn rule(key: &str, channel: &str) -> Rule {
    Rule {
        pattern: KeyPattern::parse(key).unwrap(),
        channel: ChannelTemplate::parse(channel).unwrap(),
    }
}

fn channels(mappings: &Mappings, key: &[u8]) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    mappings.each(key, &mut Scratch::default(), |mapping, channel, _| {
        found.push((mapping.0, channel.to_owned()))
    });
    found
}

#[test]
fn one_key_feeds_several_channels_and_several_mappings_one() {
    let mappings = Mappings::new(vec![
        rule("cart:{user}", "cart:{user}"),
        rule("cart:*", "carts"),
        rule("cart-item:{user}:{item}", "cart:{user}"),
    ])
    .unwrap();
    assert_eq!(
        channels(&mappings, b"cart:7"),
        [(0, "cart:7".to_owned()), (1, "carts".to_owned())]
    );
    assert_eq!(channels(&mappings, b"cart-item:7:a"), [(2, "cart:7".to_owned())]);
    let sources = mappings.sources("cart:7");
    assert_eq!(sources[0].keys, KeySet::One("cart:7".into()));
    assert_eq!(sources[1].keys, KeySet::Matching("cart-item:7:*".into()));
    assert_eq!(mappings.sources("carts")[0].keys, KeySet::Matching("cart:*".into()));
    assert!(mappings.sources("cart:7:8").is_empty());
}
