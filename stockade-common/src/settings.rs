/*!
Kernel security settings that a policy holds, named like files below /proc/sys, and the decision about a write to one.

```text
freeze     only the current value may be written
ratchet    the current value, or a stricter one
```

A write is refused in case of doubt: if a value is not a number where one is expected, has more than a line break after the number, or is too long.
*/

/// Longest name including its zero: `net/ipv6/conf/` with the longest name of an interface and a key fits.
pub const SETTING_NAME_MAX: usize = 64;

/// Longest value that is compared, including its zero.
pub const SETTING_VALUE_MAX: usize = 128;

/// Maximum number of settings of all loaded policies together.
pub const SETTINGS_MAX: u32 = 1 << 11;

/// A value as text, padded with zeros.
pub type SettingText = [u64; SETTING_VALUE_MAX / 8];

/// Key of `settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SettingKey {
    /// Generation of the policy.
    pub generation: u64,
    /// The kernel's name, with slashes and without /proc/sys/, padded with zeros: `kernel/kptr_restrict`.
    pub name: [u8; SETTING_NAME_MAX],
}

impl Default for SettingKey {
    fn default() -> Self {
        Self { generation: 0, name: [0; SETTING_NAME_MAX] }
    }
}

impl SettingKey {
    /// Makes the key of a setting; `None` for a name that is empty or too long.
    #[must_use]
    pub fn new(generation: u64, name: &str) -> Option<Self> {
        let mut key = Self { generation, name: [0; SETTING_NAME_MAX] };
        let fits = !name.is_empty() && name.len() < SETTING_NAME_MAX;
        key.name.get_mut(..name.len()).filter(|_| fits)?.copy_from_slice(name.as_bytes());
        Some(key)
    }
}

/// How a setting is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SettingRule {
    /// [`SettingRule::FREEZE`] or [`SettingRule::RATCHET`].
    pub hold: u32,
    /// The meaning of its values: [`SettingRule::TEXT`] and so on.
    pub kind: u32,
    /// 1 if a write that the rule forbids is allowed and reported.
    pub audit: u32,
    /// For [`SettingRule::ORDER`], the number of values.
    pub length: u32,
    /// For [`SettingRule::ORDER`], the values from the weakest to the strictest.
    pub order: [i8; Self::VALUES],
}

impl SettingRule {
    /// The value must stay.
    pub const FREEZE: u32 = 1;
    /// The value must stay or become stricter.
    pub const RATCHET: u32 = 2;

    /// A string, compared byte by byte. Only with [`SettingRule::FREEZE`].
    pub const TEXT: u32 = 0;
    /// A value of unknown type, compared like a string, with tab and space equal: the kernel writes lists of numbers with tabs,
    /// administrators with spaces. Only with [`SettingRule::FREEZE`].
    pub const WORDS: u32 = 1;
    /// A number; the higher, the stricter.
    pub const HIGHER: u32 = 2;
    /// A number; the lower, the stricter. A negative number means no limit.
    pub const LOWER: u32 = 3;
    /// A number; the lower, the stricter. Zero or a negative number means no limit.
    pub const LOWER_BUT_ZERO: u32 = 4;
    /// A mask of bits that permit; 1 permits everything.
    pub const BITS: u32 = 5;
    /// One of a few numbers, with an order of its own.
    pub const ORDER: u32 = 6;

    /// Maximum number of values in an order.
    pub const VALUES: usize = 8;

    /// Reports whether values are numbers.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no room for calls: their stacks add up")]
    pub const fn is_number(&self) -> bool {
        self.kind >= Self::HIGHER
    }

    /// Reports whether a number may be written while the setting has the value `now`.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    pub fn lets_through(&self, now: i64, new: i64) -> bool {
        if now == new {
            return true;
        }
        if self.hold != Self::RATCHET {
            return false;
        }
        match self.kind {
            Self::HIGHER => new > now,
            Self::LOWER => limit(new, -1) <= limit(now, -1),
            Self::LOWER_BUT_ZERO => limit(new, 0) <= limit(now, 0),
            Self::BITS => mask(new) & !mask(now) == 0,
            Self::ORDER => self.rank(new, 0) != 0 && self.rank(new, 0) >= self.rank(now, self.length),
            _ => false,
        }
    }

    /// Returns the position of a value in the order, from 1; `otherwise` if it has none.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    fn rank(&self, value: i64, otherwise: u32) -> u32 {
        let mut rank = otherwise;
        let mut at = 0u32;
        while (at as usize) < Self::VALUES {
            if at < self.length && i64::from(self.order[at as usize]) == value {
                rank = at + 1;
            }
            at += 1;
        }
        rank
    }

    /// Reports whether this rule refuses every write that the other refuses. Used to tell a laxer policy from a stricter one.
    #[must_use]
    pub fn is_at_least(&self, other: &Self) -> bool {
        let same = self.kind == other.kind && self.length == other.length && self.order == other.order;
        let hold = self.hold == Self::FREEZE || other.hold == Self::RATCHET;
        same && hold && (self.audit == 0 || other.audit != 0)
    }
}

/// Returns the limit that a number sets: a number up to `none` means no limit, which is [`u64::MAX`].
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn limit(value: i64, none: i64) -> u64 {
    // `none` is -1 or 0, so that a number above it is not negative, and below `u64::MAX`.
    if value <= none { u64::MAX } else { value.unsigned_abs() }
}

/// Returns the bits that a mask permits: 1 stands for all.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn mask(value: i64) -> i64 {
    if value == 1 { -1 } else { value }
}

/// Reports whether two values are the same text. With `words`, a tab equals a space.
#[must_use]
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
pub fn same_text(now: &SettingText, new: &SettingText, words: bool) -> bool {
    let alike = u64::from(words).wrapping_neg();
    let mut differs = 0;
    let mut at = 0;
    while at < SETTING_VALUE_MAX / 8 {
        differs |= spaces(now[at], alike) ^ spaces(new[at], alike);
        at += 1;
    }
    differs == 0
}

/// Replaces tabs by spaces in the bytes where `alike` has ones. Without branches: the verifier follows each of them.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn spaces(word: u64, alike: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const TAB: u64 = 9;
    const SPACE: u64 = 32;
    const SEVEN: u64 = 0x7f * LOW;
    // The highest bit of each byte that is a tab.
    let other = word ^ (TAB * LOW);
    let tabs = !(((other & SEVEN) + SEVEN) | other | SEVEN);
    // No byte overflows into the next.
    word + (((tabs >> 7) * (SPACE - TAB)) & alike)
}

const _: () = assert!(size_of::<SettingKey>() == 72);
const _: () = assert!(size_of::<SettingRule>() == 24);
