// (pure) `Server.status.installed`: which extension is on a server, for whom, and who looks after it (architecture §4).
//
// Each change is one write against the resourceVersion of what was read, and comes before the intent of a step. So of two
// Taskservs that want the same extension one installs it and the other one waits, whatever crashes in between: who
// comes back finds the entry as it was.

use provisioning_api::server::{Installed, InstalledFor, InstalledState};

use super::place::concerns;

/// What a Taskserv wants of one extension on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Name of the extension.
    pub(crate) name: String,
    /// Version of the bundle.
    pub(crate) version: String,
    /// Its digest.
    pub(crate) digest: String,
    /// Whether it is wanted for its own sake, with the parameters of the spec.
    pub(crate) is_own: bool,
    /// Whether the Taskserv looks after nothing but its own extension, and this is another one.
    pub(crate) declines: bool,
    /// Whether the Taskserv has installed and checked it with these inputs. `None`: the inputs are not known just now.
    pub(crate) done: Option<bool>,
}

/// How the Taskserv's own steps for an extension on the server stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// A run may still act.
    pub(crate) open: bool,
    /// Something may be there that has to be removed by it.
    pub(crate) owed: bool,
    /// Whether it removes at all what it, or who had it before, has installed.
    pub(crate) removes: bool,
}

/// How a Taskserv stands that looks after an entry, or might.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keeper {
    /// The extension is its own, not only required.
    pub(crate) is_own: bool,
    /// It has failed for good, or begins nothing just now, and nothing of it is open.
    pub(crate) has_failed: bool,
    /// Something of it may be there that would have to be removed.
    pub(crate) owes: bool,
    /// It looks after nothing but its own extension, this is another one, and nothing of it is open.
    pub(crate) declines: bool,
}

/// The entries of a server as a Taskserv would have them now; equal ones where it has nothing to change.
pub(crate) fn next(
    list: &[Installed],
    me: &InstalledFor,
    claims: &[Claim],
    work: impl Fn(&str) -> Work,
    others: impl Fn(&InstalledFor, &Installed) -> Keeper,
) -> Vec<Installed> {
    let mut next = Vec::with_capacity(list.len());
    for entry in list {
        let name = entry.extension.as_str();
        match claims.iter().find(|claim| claim.name == name) {
            Some(claim) => next.push(hold(entry, me, claim, work(name), |user| others(user, entry))),
            None if concerns(entry, &me.uid) => next.extend(leave(entry, me, work(name), |user| others(user, entry))),
            None => next.push(entry.clone()),
        }
    }
    let new = claims.iter().filter(|claim| !list.iter().any(|entry| entry.extension == claim.name));
    next.extend(new.map(|claim| fresh(me, claim)));
    next
}

fn fresh(me: &InstalledFor, claim: &Claim) -> Installed {
    Installed {
        extension: claim.name.clone(),
        version: claim.version.clone(),
        digest: claim.digest.clone(),
        state: if claim.done == Some(true) { InstalledState::Installed } else { InstalledState::Installing },
        by: me.clone(),
        inherited_from: None,
        required_by: vec![me.clone()],
    }
}

/// An entry that the Taskserv wants: it joins, and looks after it where that falls to it.
fn hold(
    entry: &Installed,
    me: &InstalledFor,
    claim: &Claim,
    work: Work,
    others: impl Fn(&InstalledFor) -> Keeper,
) -> Installed {
    let is_ours = entry.by.uid == me.uid;
    if entry.state == InstalledState::Removing {
        // Wanted again before it was removed, or just after.
        let anew = || Installed { inherited_from: entry.inherited_from.clone(), ..fresh(me, claim) };
        return if is_ours && !work.open { anew() } else { entry.clone() };
    }
    let mut next = entry.clone();
    if is_ours && !work.open && work.owed {
        next.inherited_from = None;
    }
    if !next.required_by.iter().any(|user| user.uid == me.uid) {
        next.required_by.push(me.clone());
        next.required_by.sort();
    }
    let takes_over = !is_ours && falls_to(&next, me, claim, &others);
    if takes_over && others(&entry.by).owes {
        next.inherited_from = Some(entry.by.clone());
    }
    if takes_over || (is_ours && !work.open && next.digest != claim.digest) {
        next.by = me.clone();
        next.version.clone_from(&claim.version);
        next.digest.clone_from(&claim.digest);
        next.state = InstalledState::Installing;
    } else if is_ours && !work.open {
        next.state = match claim.done {
            Some(true) => InstalledState::Installed,
            Some(false) => InstalledState::Installing,
            None => next.state,
        };
    }
    next
}

/// Whether a Taskserv takes the place of the one that looks after an entry.
fn falls_to(entry: &Installed, me: &InstalledFor, claim: &Claim, others: impl Fn(&InstalledFor) -> Keeper) -> bool {
    let keeper = others(&entry.by);
    if keeper.is_own || claim.declines {
        return false;
    }
    let mut heirs = entry.required_by.iter().filter(|user| user.uid == me.uid || !others(user).declines);
    // Upwards only, so that two that fail do not hand it to each other for ever. Who declines does not take it back.
    let heir = if keeper.declines { heirs.next() } else { heirs.find(|user| user.uid > entry.by.uid) };
    let is_heir = heir.is_some_and(|user| user.uid == me.uid);
    match entry.state {
        // Whose own extension it is, its parameters count; and another version that all agree to has to be brought.
        InstalledState::Installed => claim.is_own || entry.digest != claim.digest || (keeper.declines && is_heir),
        InstalledState::Installing => (keeper.has_failed || keeper.declines) && (claim.is_own || is_heir),
        InstalledState::Removing => false,
    }
}

/// An entry that the Taskserv no longer wants. `None`: nobody does, and nothing has to be removed.
fn leave(
    entry: &Installed,
    me: &InstalledFor,
    work: Work,
    others: impl Fn(&InstalledFor) -> Keeper,
) -> Option<Installed> {
    let is_ours = entry.by.uid == me.uid;
    let mut next = entry.clone();
    // Its own steps know of it by now.
    if is_ours && work.owed {
        next.inherited_from = None;
    }
    if work.open {
        return Some(next);
    }
    next.required_by.retain(|user| user.uid != me.uid);
    // One that declines is left with it only where all do.
    let heir = next.required_by.iter().find(|user| !others(user).declines).or(next.required_by.first());
    match heir.cloned() {
        Some(heir) => {
            if is_ours {
                next.by = heir;
            }
            if is_ours && work.owed {
                next.inherited_from = Some(me.clone());
            }
            Some(next)
        }
        None if work.owed || (is_ours && work.removes && entry.inherited_from.is_some()) => {
            next.state = InstalledState::Removing;
            next.by = me.clone();
            Some(next)
        }
        None => None,
    }
}

/// Takes Taskservs out that are gone without having left, forced away by hand. What they alone needed stays on the machine,
/// and nobody answers for it any more.
pub(crate) fn bury(list: &mut Vec<Installed>, gone: impl Fn(&InstalledFor) -> bool) {
    list.retain_mut(|entry| {
        entry.required_by.retain(|user| !gone(user));
        if !gone(&entry.by) {
            return true;
        }
        let Some(first) = entry.required_by.first().cloned() else { return false };
        let former = std::mem::replace(&mut entry.by, first);
        // What it did is not known.
        entry.inherited_from.get_or_insert(former);
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> InstalledFor {
        InstalledFor { uid: format!("uid-{name}"), name: name.to_owned() }
    }

    fn claim(name: &str) -> Claim {
        Claim {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            digest: format!("#{name}-1"),
            is_own: false,
            declines: false,
            done: Some(false),
        }
    }

    fn told(list: &[Installed]) -> String {
        let one = |entry: &Installed| {
            let users: Vec<&str> = entry.required_by.iter().map(|user| user.name.as_str()).collect();
            format!(
                "{} {} {:?} by {} for {}",
                entry.extension,
                entry.digest,
                entry.state,
                entry.by.name,
                users.join("+")
            )
        };
        list.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    const NOTHING: Work = Work { open: false, owed: false, removes: true };
    const OPEN: Work = Work { open: true, owed: true, removes: true };
    const OWED: Work = Work { open: false, owed: true, removes: true };

    /// One pass of a Taskserv that nothing else is known of.
    fn pass(list: &mut Vec<Installed>, name: &str, claims: &[Claim], work: Work) -> String {
        *list = next(list, &user(name), claims, |_| work, |_, _| Keeper::default());
        told(list)
    }

    fn done(claim: Claim) -> Claim {
        Claim { done: Some(true), ..claim }
    }

    #[test]
    fn a_shared_extension_is_installed_once_and_goes_with_its_last_user() {
        let mut reeds = Vec::new();
        let lib = || claim("lib");
        assert_eq!(pass(&mut reeds, "avocet", &[lib()], NOTHING), "lib #lib-1 Installing by avocet for avocet");
        assert_eq!(
            pass(&mut reeds, "bittern", &[lib()], NOTHING),
            "lib #lib-1 Installing by avocet for avocet+bittern"
        );
        // While it is installed, nothing moves.
        assert_eq!(pass(&mut reeds, "avocet", &[lib()], OPEN), "lib #lib-1 Installing by avocet for avocet+bittern");
        let installed = "lib #lib-1 Installed by avocet for avocet+bittern";
        assert_eq!(pass(&mut reeds, "avocet", &[done(lib())], OWED), installed);
        assert_eq!(pass(&mut reeds, "bittern", &[lib()], NOTHING), installed);
        // Its keeper goes: the other one looks after it, and installs it once more to be sure.
        assert_eq!(pass(&mut reeds, "avocet", &[], OWED), "lib #lib-1 Installed by bittern for bittern");
        assert_eq!(pass(&mut reeds, "bittern", &[lib()], NOTHING), "lib #lib-1 Installing by bittern for bittern");
        assert_eq!(pass(&mut reeds, "bittern", &[done(lib())], OWED), "lib #lib-1 Installed by bittern for bittern");
        // The last one goes: it is removed, and a newcomer waits for the end of that.
        assert_eq!(pass(&mut reeds, "bittern", &[], OWED), "lib #lib-1 Removing by bittern for ");
        assert_eq!(pass(&mut reeds, "curlew", &[lib()], NOTHING), "lib #lib-1 Removing by bittern for ");
        assert_eq!(pass(&mut reeds, "bittern", &[], OPEN), "lib #lib-1 Removing by bittern for ");
        assert_eq!(pass(&mut reeds, "bittern", &[], NOTHING), "");
        assert_eq!(pass(&mut reeds, "curlew", &[lib()], NOTHING), "lib #lib-1 Installing by curlew for curlew");
    }

    #[test]
    fn who_leaves_with_nothing_done_leaves_no_trace() {
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[claim("lib"), claim("web")], NOTHING);
        assert_eq!(pass(&mut reeds, "avocet", &[], NOTHING), "");
        // Others are none of its business.
        pass(&mut reeds, "bittern", &[claim("lib")], NOTHING);
        assert_eq!(pass(&mut reeds, "avocet", &[], OWED), "lib #lib-1 Installing by bittern for bittern");
    }

    #[test]
    fn nothing_is_left_while_a_run_may_still_act() {
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[claim("lib")], NOTHING);
        let before = pass(&mut reeds, "bittern", &[claim("lib")], NOTHING);
        assert_eq!(pass(&mut reeds, "avocet", &[], OPEN), before);
    }

    #[test]
    fn what_is_wanted_again_before_it_was_removed_is_kept() {
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[claim("lib")], NOTHING);
        assert_eq!(pass(&mut reeds, "avocet", &[], OWED), "lib #lib-1 Removing by avocet for ");
        assert_eq!(pass(&mut reeds, "avocet", &[claim("lib")], OPEN), "lib #lib-1 Removing by avocet for ");
        assert_eq!(
            pass(&mut reeds, "avocet", &[done(claim("lib"))], OWED),
            "lib #lib-1 Installed by avocet for avocet"
        );
    }

    #[test]
    fn a_failed_keeper_is_followed_by_the_next_one_and_never_by_an_earlier_one() {
        let failed = |_: &InstalledFor, _: &Installed| Keeper { has_failed: true, ..Keeper::default() };
        let mut reeds = Vec::new();
        for name in ["bittern", "avocet", "curlew"] {
            pass(&mut reeds, name, &[claim("lib")], NOTHING);
        }
        let turn = |reeds: &mut Vec<Installed>, name: &str| {
            *reeds = next(reeds, &user(name), &[claim("lib")], |_| NOTHING, failed);
            told(reeds)
        };
        assert_eq!(turn(&mut reeds, "avocet"), "lib #lib-1 Installing by bittern for avocet+bittern+curlew");
        assert_eq!(turn(&mut reeds, "curlew"), "lib #lib-1 Installing by curlew for avocet+bittern+curlew");
        for name in ["avocet", "bittern", "avocet"] {
            assert_eq!(turn(&mut reeds, name), "lib #lib-1 Installing by curlew for avocet+bittern+curlew");
        }
    }

    #[test]
    fn who_declines_is_left_with_it_only_where_all_do_and_gives_it_to_whoever_comes() {
        let strict = |names: &'static str| {
            move |user: &InstalledFor, _: &Installed| Keeper {
                declines: names.contains(&user.name),
                ..Keeper::default()
            }
        };
        let turn = |reeds: &mut Vec<Installed>, name: &str, claims: &[Claim], names: &'static str| {
            *reeds = next(reeds, &user(name), claims, |_| NOTHING, strict(names));
            told(reeds)
        };
        let declining = || Claim { declines: true, ..claim("lib") };
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[done(claim("lib"))], NOTHING);
        turn(&mut reeds, "bittern", &[declining()], "bittern");
        turn(&mut reeds, "curlew", &[claim("lib")], "bittern");
        assert_eq!(turn(&mut reeds, "avocet", &[], "bittern"), "lib #lib-1 Installed by curlew for bittern+curlew");
        assert_eq!(turn(&mut reeds, "curlew", &[], "bittern"), "lib #lib-1 Installed by bittern for bittern");
        assert_eq!(
            turn(&mut reeds, "avocet", &[claim("lib")], "bittern"),
            "lib #lib-1 Installing by avocet for avocet+bittern"
        );
        // It takes nothing over from one that has failed, and is passed over.
        turn(&mut reeds, "curlew", &[claim("lib")], "bittern");
        let failed = |user: &InstalledFor, entry: &Installed| Keeper {
            has_failed: user.name == "avocet",
            ..strict("bittern")(user, entry)
        };
        reeds = next(&reeds, &user("bittern"), &[declining()], |_| NOTHING, failed);
        assert!(told(&reeds).starts_with("lib #lib-1 Installing by avocet"), "{}", told(&reeds));
        reeds = next(&reeds, &user("curlew"), &[claim("lib")], |_| NOTHING, failed);
        assert!(told(&reeds).starts_with("lib #lib-1 Installing by curlew"), "{}", told(&reeds));
    }

    #[test]
    fn whose_own_extension_it_is_looks_after_it_as_soon_as_nobody_acts() {
        let own = || Claim { is_own: true, digest: "#lib-2".to_owned(), version: "2.0.0".to_owned(), ..claim("lib") };
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[claim("lib")], NOTHING);
        assert_eq!(
            pass(&mut reeds, "bittern", &[own()], NOTHING),
            "lib #lib-1 Installing by avocet for avocet+bittern"
        );
        pass(&mut reeds, "avocet", &[done(claim("lib"))], OWED);
        assert_eq!(
            pass(&mut reeds, "bittern", &[own()], NOTHING),
            "lib #lib-2 Installing by bittern for avocet+bittern"
        );
        // It stays with it, even where it fails: nobody else knows its parameters.
        let failed = |_: &InstalledFor, _: &Installed| Keeper { has_failed: true, is_own: true, ..Keeper::default() };
        let kept = next(&reeds, &user("curlew"), &[claim("lib")], |_| NOTHING, failed);
        assert_eq!(told(&kept), "lib #lib-2 Installing by bittern for avocet+bittern+curlew");
    }

    #[test]
    fn a_version_that_is_needed_instead_is_brought_by_who_needs_it() {
        let newer = || Claim { digest: "#lib-2".to_owned(), ..claim("lib") };
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[claim("lib")], NOTHING);
        pass(&mut reeds, "avocet", &[done(claim("lib"))], OWED);
        assert_eq!(
            pass(&mut reeds, "bittern", &[newer()], NOTHING),
            "lib #lib-2 Installing by bittern for avocet+bittern"
        );
        // Its keeper brings its own new version without asking anybody, but never under an open run.
        let newest = || Claim { digest: "#lib-3".to_owned(), ..claim("lib") };
        assert_eq!(
            pass(&mut reeds, "bittern", &[newest()], OPEN),
            "lib #lib-2 Installing by bittern for avocet+bittern"
        );
        assert_eq!(
            pass(&mut reeds, "bittern", &[newest()], OWED),
            "lib #lib-3 Installing by bittern for avocet+bittern"
        );
    }

    #[test]
    fn inputs_that_are_not_known_just_now_change_nothing() {
        let mut reeds = Vec::new();
        pass(&mut reeds, "avocet", &[claim("lib")], NOTHING);
        let installed = pass(&mut reeds, "avocet", &[done(claim("lib"))], OWED);
        assert_eq!(pass(&mut reeds, "avocet", &[Claim { done: None, ..claim("lib") }], OWED), installed);
    }

    #[test]
    fn an_heir_that_did_nothing_removes_what_was_left_to_it() {
        let heir = |work: Work| {
            let mut reeds = Vec::new();
            pass(&mut reeds, "avocet", &[claim("lib")], NOTHING);
            pass(&mut reeds, "bittern", &[claim("lib")], NOTHING);
            pass(&mut reeds, "avocet", &[], work);
            assert_eq!(told(&reeds), "lib #lib-1 Installing by bittern for bittern");
            reeds
        };
        let removing = "lib #lib-1 Removing by bittern for ";
        let mut reeds = heir(OWED);
        assert_eq!(pass(&mut reeds, "bittern", &[], NOTHING), removing);
        // Until its own steps say so, whatever was written in between.
        assert_eq!(pass(&mut reeds, "bittern", &[], NOTHING), removing);
        assert_eq!(pass(&mut reeds, "bittern", &[], OPEN), removing);
        assert_eq!(pass(&mut reeds, "bittern", &[], NOTHING), "");
        // Wanted again, and left again.
        let mut reeds = heir(OWED);
        pass(&mut reeds, "bittern", &[], NOTHING);
        pass(&mut reeds, "bittern", &[claim("lib")], NOTHING);
        assert_eq!(pass(&mut reeds, "bittern", &[], NOTHING), removing);
        // Nothing was done, or it is to stay.
        let mut reeds = heir(NOTHING);
        assert_eq!(pass(&mut reeds, "bittern", &[], NOTHING), "");
        let mut reeds = heir(OWED);
        assert_eq!(pass(&mut reeds, "bittern", &[], Work { removes: false, ..NOTHING }), "");
    }

    #[test]
    fn who_was_forced_away_is_taken_out_and_followed() {
        let mut reeds = Vec::new();
        for name in ["avocet", "bittern"] {
            pass(&mut reeds, name, &[claim("lib")], NOTHING);
        }
        pass(&mut reeds, "avocet", &[claim("lib"), claim("web")], NOTHING);
        bury(&mut reeds, |user| user.name == "avocet");
        assert_eq!(told(&reeds), "lib #lib-1 Installing by bittern for bittern");
        pass(&mut reeds, "bittern", &[], OWED);
        bury(&mut reeds, |user| user.name == "bittern");
        assert_eq!(told(&reeds), "", "nobody is left to remove it");
    }

    /// Three Taskservs that come, work, fail, go and are forced away in any order.
    #[test]
    fn whatever_the_order_at_most_one_looks_after_it_and_nobody_is_forgotten() {
        let names = ["avocet", "bittern", "curlew"];
        let mut seed = 7_u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % sides
        };
        for _ in 0..2_000 {
            let (mut reeds, mut wants, mut works) = (Vec::new(), [false; 3], [NOTHING; 3]);
            // Whether something is on the machine, and whether the open run removes it.
            let (mut there, mut removes) = (false, false);
            for _ in 0..40 {
                let who = usize::try_from(dice(3)).unwrap();
                let me = user(names[who]);
                let holds = |reeds: &[Installed]| reeds.first().is_some_and(|entry: &Installed| entry.by == me);
                let look = |reeds: &[Installed], works: [Work; 3], wants: [bool; 3]| {
                    let done = works[who] == OWED;
                    let claims = [Claim { done: Some(done), ..claim("lib") }];
                    let claims = if wants[who] { &claims[..] } else { &[] };
                    let others = |other: &InstalledFor, _: &Installed| Keeper {
                        has_failed: !works.iter().any(|work| work.open),
                        owes: names.iter().zip(works).any(|(name, work)| other.name == *name && work.owed),
                        ..Keeper::default()
                    };
                    next(reeds, &me, claims, |_| works[who], others)
                };
                let leaves = |reeds: &[Installed]| reeds.iter().any(|entry| entry.state == InstalledState::Removing);
                match dice(5) {
                    0 => wants[who] = !wants[who],
                    // A step begins only where the entry says so.
                    1 if holds(&reeds) && !works.iter().any(|work| work.open) => {
                        reeds = look(&reeds, works, wants);
                        if holds(&reeds) && (wants[who] || leaves(&reeds)) {
                            works[who] = OPEN;
                            removes = leaves(&reeds);
                            there |= !removes;
                        }
                    }
                    // Its end is seen by a pass that begins with the open run.
                    2 if works[who].open => {
                        reeds = look(&reeds, works, wants);
                        works[who] = if removes { NOTHING } else { OWED };
                        there &= !removes;
                    }
                    3 if dice(4) == 0 && !works[who].open => {
                        bury(&mut reeds, |user| *user == me);
                        (wants[who], works[who]) = (false, NOTHING);
                        there &= !reeds.is_empty();
                    }
                    _ => {
                        reeds = look(&reeds, works, wants);
                        // What another one looks after is none of its work any more.
                        if !holds(&reeds) && !works[who].open {
                            works[who] = NOTHING;
                        }
                    }
                }
                assert!(!there || !reeds.is_empty(), "what is there is listed");
                let Some(entry) = reeds.first() else { continue };
                assert_eq!(reeds.len(), 1);
                let removing = entry.state == InstalledState::Removing;
                assert_eq!(removing, entry.required_by.is_empty(), "{}", told(&reeds));
                assert!(removing || entry.required_by.contains(&entry.by), "{}", told(&reeds));
                let open = names.iter().zip(works).find(|(_, work)| work.open);
                assert!(open.is_none_or(|(name, _)| entry.by.name == *name), "{} although {open:?}", told(&reeds));
            }
            // At rest everybody who wants it is in, and nobody else.
            for pass in 0..6 {
                for who in 0..3 {
                    let claims = [Claim { done: Some(true), ..claim("lib") }];
                    let claims = if wants[who] { &claims[..] } else { &[] };
                    // What is being removed is removed by a run.
                    let work = if pass % 2 == 0 { OPEN } else { NOTHING };
                    let leaves = reeds.iter().any(|entry: &Installed| entry.state == InstalledState::Removing);
                    let work = |_: &str| if leaves { work } else { NOTHING };
                    reeds = next(&reeds, &user(names[who]), claims, work, |_, _| Keeper::default());
                }
            }
            let inside: Vec<String> =
                reeds.iter().flat_map(|entry| &entry.required_by).map(|user| user.name.clone()).collect();
            let expected: Vec<&str> =
                names.iter().zip(wants).filter(|(_, wants)| *wants).map(|(name, _)| *name).collect();
            assert_eq!(inside, expected);
        }
    }
}
