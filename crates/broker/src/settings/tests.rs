use super::*;
use crate::config::Config;
use crate::topic::SettingSource;

fn described(config: &Config, settings: &TopicSettings) -> Vec<(&'static str, String, SettingSource)> {
    let all = Effective::described(config, settings);
    all.into_iter().map(|setting| (setting.name, setting.value, setting.source)).collect()
}

#[test]
fn names_are_in_order_and_every_default_is_a_value_that_can_be_set() {
    let names: Vec<&str> = SettingName::ALL.iter().map(|name| name.as_str()).collect();
    assert!(names.is_sorted());
    for (name, value, source) in described(&Config::new("/nowhere"), &TopicSettings::default()) {
        assert_eq!(source, SettingSource::Default);
        let set = TopicSettings::new([(name, &value)]).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [(name, value)]);
    }
}

#[test]
fn values_out_of_range_are_refused_with_what_they_can_be() {
    for (name, bad) in [
        ("cleanup.policy", ""),
        ("cleanup.policy", "compact,compact"),
        ("cleanup.policy", "keep"),
        ("compression.type", "none"),
        ("durability", "Durable"),
        ("flush.ms", "0"),
        ("flush.ms", "86400001"),
        ("max.message.bytes", "0"),
        ("max.message.bytes", "2147483648"),
        ("message.timestamp.type", "createtime"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("min.compaction.lag.ms", "-1"),
        ("retention.bytes", "-2"),
        ("retention.ms", "9223372036854775808"),
        ("retention.ms", "+1"),
        ("retention.ms", "1 day"),
        ("segment.bytes", "65535"),
        ("segment.bytes", "1073741825"),
    ] {
        let error = TopicSettings::new([(name, bad)]).unwrap_err();
        assert_eq!(error.reason(), Reason::SettingInvalid, "{name}={bad}");
        assert!(error.message().contains(name) && error.message().contains(": it is"), "{error}");
    }
    let unknown = TopicSettings::new([("retention.hours", "1")]).unwrap_err();
    assert!(unknown.message().contains("there are cleanup.policy, "), "{unknown}");
    let twice = TopicSettings::new([("retention.ms", "1"), ("retention.ms", "2")]).unwrap_err();
    assert!(twice.message().contains("twice"), "{twice}");
    let huge = TopicSettings::new([("x".repeat(1_000_000), "1")]).unwrap_err();
    assert!(huge.message().len() < 1_000);
}

#[test]
fn a_topic_goes_before_its_node_and_the_node_before_the_default() {
    let node = TopicSettings::new([("retention.ms", "5"), ("retention.bytes", "7")]).unwrap();
    let config = Config { topic_defaults: node, ..Config::new("/nowhere") };
    let topic = TopicSettings::new([("retention.ms", "-1")]).unwrap();
    let all = described(&config, &topic);
    let of = |name| all.iter().find(|setting| setting.0 == name).unwrap().clone();
    assert_eq!(of("retention.ms"), ("retention.ms", "-1".into(), SettingSource::Topic));
    assert_eq!(of("retention.bytes"), ("retention.bytes", "7".into(), SettingSource::Node));
    assert_eq!(of("durability"), ("durability", "durable".into(), SettingSource::Default));
}

#[test]
fn a_compacted_topic_rolls_by_age_unless_it_says_otherwise() {
    let config = Config::new("/nowhere");
    let of = |settings: &[(&str, &str)]| {
        let settings = TopicSettings::new(settings.iter().copied()).unwrap();
        described(&config, &settings).into_iter().find(|setting| setting.0 == "segment.ms").unwrap()
    };
    assert_eq!(of(&[]).1, "-1");
    let week = ("segment.ms", "604800000".to_owned(), SettingSource::Default);
    assert_eq!(of(&[("cleanup.policy", "compact")]), week);
    assert_eq!(of(&[("cleanup.policy", "compact"), ("segment.ms", "-1")]).1, "-1");
}

#[test]
fn changes_are_made_one_by_one_and_a_list_never_runs_empty() {
    let node = TopicSettings::default();
    let change = |name: &str, change| SettingChange { name: name.into(), change };
    let both = TopicSettings::default()
        .changed(&[change("cleanup.policy", Change::Append("compact".into()))], &node)
        .unwrap();
    assert_eq!(both.text(SettingName::CleanupPolicy).as_deref(), Some("compact,delete"));
    let one = both.changed(&[change("cleanup.policy", Change::Remove("delete".into()))], &node).unwrap();
    assert_eq!(one.text(SettingName::CleanupPolicy).as_deref(), Some("compact"));
    for bad in [
        vec![change("cleanup.policy", Change::Remove("compact".into()))],
        vec![change("retention.ms", Change::Append("1".into()))],
        vec![SettingChange::set("retention.ms", "1"), SettingChange::reset("retention.ms")],
        vec![SettingChange::reset("no.such")],
    ] {
        assert_eq!(one.changed(&bad, &node).unwrap_err().reason(), Reason::SettingInvalid);
    }
    assert_eq!(one.changed(&[SettingChange::reset("cleanup.policy")], &node).unwrap(), node);
}

#[test]
fn the_guide_lists_every_setting_with_its_default() {
    let guide = include_str!("../../../../docs/guide.md");
    for (name, default, _) in described(&Config::new("/nowhere"), &TopicSettings::default()) {
        let line = guide.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in docs/guide.md"));
        let shown = line.split('|').nth(2).unwrap_or_default().replace([',', '`'], "");
        assert_eq!(shown.trim(), default, "{line}");
    }
}
