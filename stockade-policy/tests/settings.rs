//! What becomes of a write to a setting, held against a plain model of what freezing and ratchets mean.

use proptest::{prelude::*, sample::select};
use stockade_common::{SETTING_VALUE_MAX, SettingRule, SettingText, same_text};

const KINDS: [u32; 5] = [
    SettingRule::HIGHER,
    SettingRule::LOWER,
    SettingRule::LOWER_BUT_ZERO,
    SettingRule::BITS,
    SettingRule::ORDER,
];

fn rules() -> impl Strategy<Value = SettingRule> {
    let order = proptest::sample::subsequence((-3i8..6).collect::<Vec<_>>(), 2..=8).prop_shuffle();
    let hold = select(&[SettingRule::FREEZE, SettingRule::RATCHET][..]);
    (hold, select(&KINDS[..]), 0..2u32, order).prop_map(|(hold, kind, audit, values)| {
        let mut rule = SettingRule { hold, kind, audit, ..SettingRule::default() };
        if kind == SettingRule::ORDER {
            rule.length = u32::try_from(values.len()).expect("eight at most");
            rule.order[..values.len()].copy_from_slice(&values);
        }
        rule
    })
}

/// Near each other, so that each relation comes often.
fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -4..10i64, 2 => select(&[i64::MIN, i64::MIN + 1, i64::MAX, 1 << 31, -(1 << 31), 438][..]), 1 => any::<i64>()]
}

/// How strict a value is; larger is stricter, and none is not known. Masks are apart: they have no such number.
fn strictness(rule: &SettingRule, value: i64) -> Option<i128> {
    let no_limit = i128::MIN;
    match rule.kind {
        SettingRule::HIGHER => Some(i128::from(value)),
        SettingRule::LOWER => Some(if value < 0 { no_limit } else { -i128::from(value) }),
        SettingRule::LOWER_BUT_ZERO => Some(if value <= 0 { no_limit } else { -i128::from(value) }),
        SettingRule::ORDER => {
            let known = &rule.order[..rule.length as usize];
            let place = known.iter().position(|known| i64::from(*known) == value)?;
            Some(place as i128)
        }
        _ => unreachable!(),
    }
}

/// The bits that a mask permits.
fn permitted(mask: i64) -> Vec<u32> {
    (0..64).filter(|bit| mask == 1 || mask >> bit & 1 == 1).collect()
}

fn model(rule: &SettingRule, now: i64, new: i64) -> bool {
    if now == new {
        return true;
    }
    if rule.hold == SettingRule::FREEZE {
        return false;
    }
    if rule.kind == SettingRule::BITS {
        let had = permitted(now);
        return permitted(new).iter().all(|bit| had.contains(bit));
    }
    match (strictness(rule, now), strictness(rule, new)) {
        (_, None) => false,
        // From what nobody knows, only to what nothing is stricter than.
        (None, Some(to)) => to == i128::from(rule.length) - 1,
        (Some(from), Some(to)) => to >= from,
    }
}

/// Text as the kernel hands it over.
fn text(bytes: &[u8]) -> SettingText {
    let mut padded = [0; SETTING_VALUE_MAX];
    padded[..bytes.len()].copy_from_slice(bytes);
    let mut words = [0; SETTING_VALUE_MAX / 8];
    for (word, chunk) in words.iter_mut().zip(padded.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
    }
    words
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_write_gets_through_where_the_model_says_so(rule in rules(), now in numbers(), new in numbers()) {
        prop_assert_eq!(rule.lets_through(now, new), model(&rule, now, new), "{:?} {} {}", rule, now, new);
    }

    #[test]
    fn no_way_of_writes_leads_back(rule in rules(), writes in proptest::collection::vec(numbers(), 2..12)) {
        let first = writes[0];
        let mut now = first;
        for new in writes {
            if rule.lets_through(now, new) {
                now = new;
            }
        }
        prop_assert!(model(&rule, first, now), "{:?} from {} to {}", rule, first, now);
    }

    #[test]
    fn what_a_rule_that_is_at_least_another_lets_through_the_other_does(
        one in rules(), other in rules(), now in numbers(), new in numbers()
    ) {
        if one.is_at_least(&other) && one.lets_through(now, new) {
            prop_assert!(other.lets_through(now, new));
        }
        let frozen = SettingRule { hold: SettingRule::FREEZE, audit: 0, ..other };
        prop_assert!(frozen.is_at_least(&other) && other.is_at_least(&other));
    }

    #[test]
    fn texts_are_the_same_when_their_bytes_are(
        now in proptest::collection::vec(select(&b"\t ab\x89\xa0\xff\x00"[..]), 0..SETTING_VALUE_MAX),
        at in any::<proptest::sample::Index>(),
        to in any::<u8>(),
    ) {
        prop_assert!(same_text(&text(&now), &text(&now), false));
        let mut new = now.clone();
        if !new.is_empty() {
            let at = at.index(new.len());
            new[at] = to;
        }
        prop_assert_eq!(same_text(&text(&now), &text(&new), false), now == new);
        let spaced = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().map(|byte| if *byte == b'\t' { b' ' } else { *byte }).collect()
        };
        prop_assert_eq!(same_text(&text(&now), &text(&new), true), spaced(&now) == spaced(&new));
        prop_assert!(same_text(&text(&now), &text(&spaced(&now)), true));
    }
}
