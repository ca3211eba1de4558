/*!
Kernel security settings that a policy holds, sysctls by the kernel's name, and the decision about a write to one.

```text
freeze     the value it has already, nothing else
ratchet    the value it has already, or a stricter one
```

What cannot be told with certainty to be one of these is refused: a value that is no number where one is expected, that is
followed by anything, or is longer than anybody looks at.
*/

/// Longest name, with the zero after it: `net/ipv6/conf/` with the longest name of an interface and a key fits.
pub const SETTING_NAME_MAX: usize = 64;

/// Longest value that is looked at, with the zero after it.
pub const SETTING_VALUE_MAX: usize = 128;

/// Most settings of all policies together that are loaded at one time.
pub const SETTINGS_MAX: u32 = 1 << 11;

/// A value as text, padded with zeros.
pub type SettingText = [u64; SETTING_VALUE_MAX / 8];

/// Key of `settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SettingKey {
    /// The policy.
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
    /// The key of a setting; none for a name that is empty or too long.
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
    /// What its values mean: [`SettingRule::TEXT`] and so on.
    pub kind: u32,
    /// 1 where a write that the rule forbids is let through and reported.
    pub audit: u32,
    /// For [`SettingRule::ORDER`], how many values there are.
    pub length: u32,
    /// For [`SettingRule::ORDER`], the values from the weakest to the strictest.
    pub order: [i8; Self::VALUES],
}

impl SettingRule {
    /// The value stays.
    pub const FREEZE: u32 = 1;
    /// The value stays or becomes stricter.
    pub const RATCHET: u32 = 2;

    /// A string: compared byte by byte. Only for freezing, as the next one.
    pub const TEXT: u32 = 0;
    /// Nobody knows what it is. As a string, but a tab and a space are alike: the kernel writes lists of numbers with
    /// tabs, people with spaces.
    pub const WORDS: u32 = 1;
    /// A number, the higher the stricter.
    pub const HIGHER: u32 = 2;
    /// A number, the lower the stricter; whatever is negative is no limit.
    pub const LOWER: u32 = 3;
    /// The same, and 0 is no limit either.
    pub const LOWER_BUT_ZERO: u32 = 4;
    /// A mask of bits that permit; 1 stands for all of them.
    pub const BITS: u32 = 5;
    /// One of a few numbers, in an order of their own.
    pub const ORDER: u32 = 6;

    /// Most values of an order.
    pub const VALUES: usize = 8;

    /// Whether values are numbers.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no room for calls: their stacks add up")]
    pub const fn is_number(&self) -> bool {
        self.kind >= Self::HIGHER
    }

    /// Whether a number may be written while the setting has another.
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

    /// The place of a value in the order, from 1; `otherwise` where it has none.
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

    /// Whether nothing gets through this rule that the other one stops: for telling a laxer policy from a stricter one.
    #[must_use]
    pub fn is_at_least(&self, other: &Self) -> bool {
        let same = self.kind == other.kind && self.length == other.length && self.order == other.order;
        let hold = self.hold == Self::FREEZE || other.hold == Self::RATCHET;
        same && hold && (self.audit == 0 || other.audit != 0)
    }
}

/// What a number limits to, where the lower is the stricter: `none` and whatever is below is no limit.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn limit(value: i64, none: i64) -> u64 {
    // More than any number that has a sign; what is more than `none` has none.
    if value <= none { u64::MAX } else { value.unsigned_abs() }
}

/// What a mask permits.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn mask(value: i64) -> i64 {
    if value == 1 { -1 } else { value }
}

/// Whether two values are the same text. With `words`, a tab is a space.
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

/// Eight bytes with a space for each tab where `alike` has ones. Without branches: the verifier follows each of them.
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
