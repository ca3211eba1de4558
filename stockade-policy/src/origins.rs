/*!
A policy without where its values were said: two policies that mean the same are then equal.
*/
use crate::{
    model::{Accepted, Exception, Origin, Policy, Reasons, Said, Scope, Seal, Settings},
    trusted::TrustedProgram,
};

impl<T> Said<T> {
    fn bare(self) -> Self {
        Self { origin: Origin::default(), ..self }
    }
}

fn bare<T>(said: Option<Said<T>>) -> Option<Said<T>> {
    said.map(Said::bare)
}

fn reasons(reasons: Reasons) -> Reasons {
    reasons.into_iter().map(|(id, verdict)| (id, verdict.bare())).collect()
}

fn settings(settings: Settings) -> Settings {
    settings.into_iter().map(|(name, hold)| (name, hold.bare())).collect()
}

impl Policy {
    /// Returns the policy without origins.
    #[must_use]
    pub fn without_origins(self) -> Self {
        Self {
            level: self.level.bare(),
            mode: self.mode.bare(),
            unknown_reasons: self.unknown_reasons.bare(),
            reasons: reasons(self.reasons),
            settings: settings(self.settings),
            scopes: self.scopes.into_iter().map(Scope::without_origins).collect(),
            exceptions: self.exceptions.into_iter().map(Exception::without_origins).collect(),
            accepted: self.accepted.into_iter().map(Accepted::without_origins).collect(),
            seal: Seal {
                pcr: bare(self.seal.pcr),
                require_tpm: self.seal.require_tpm.bare(),
                room_for_scopes: self.seal.room_for_scopes.bare(),
                trusted: self.seal.trusted.into_iter().map(TrustedProgram::without_origins).collect(),
            },
        }
    }
}

impl Scope {
    /// Returns the scope without origins.
    #[must_use]
    pub fn without_origins(self) -> Self {
        Self {
            name: self.name.bare(),
            place: self.place.bare(),
            level: bare(self.level),
            mode: bare(self.mode),
            reasons: reasons(self.reasons),
            loosen: self.loosen.bare(),
        }
    }
}

impl Exception {
    /// Returns the exception without origins.
    #[must_use]
    pub fn without_origins(self) -> Self {
        Self {
            name: self.name.bare(),
            reasons: self.reasons.into_iter().map(Said::bare).collect(),
            exe: bare(self.exe),
            digest: bare(self.digest),
            place: bare(self.place),
            uid: bare(self.uid),
            inherit: self.inherit.bare(),
            expires: bare(self.expires),
            why: bare(self.why),
            granted: self.granted,
            ends_boot_ns: self.ends_boot_ns,
        }
    }
}

impl TrustedProgram {
    /// Returns the trusted program without origins.
    #[must_use]
    pub fn without_origins(self) -> Self {
        Self {
            name: self.name.bare(),
            kind: self.kind.bare(),
            hook: bare(self.hook),
            tags: self.tags.into_iter().map(Said::bare).collect(),
            why: bare(self.why),
        }
    }
}

impl Accepted {
    /// Returns the accepted finding without origins.
    #[must_use]
    pub fn without_origins(self) -> Self {
        Self { code: self.code.bare(), about: bare(self.about), why: self.why.bare() }
    }
}
