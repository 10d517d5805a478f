//! The planted mistakes. Each is one that somebody could make, and as small as it can be.

use std::process::ExitCode;

use clap::ValueEnum;
use provisioning_api::steps::FailureClass;
use provisioning_sdk::request::{ENV_REQUEST, ENV_TERMINATION_LOG};
use tokio::signal::unix::{SignalKind, signal};

/// A mistake of the reference provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Relies on the token alone and does not look for what is there.
    DoubleCreate,
    /// Looks, and sends no token.
    IgnoredToken,
    /// Deletes by the owner's name.
    ForeignDelete,
    /// Takes refused credentials for something that passes.
    WrongClass,
    /// Reads the first page of a list only.
    UnlistedResource,
    /// Says Gone when the deletion was accepted.
    FalseAbsence,
    /// Looks by name and token, not by uid.
    AdoptsTwin,
    /// Fails on a machine that an earlier run has only begun.
    HalfMade,
    /// Replaces a machine whose size differs.
    Replaces,
    /// Leaves older machines of the owner.
    NoSweep,
    /// Leaves out the tag with the kind.
    MissingTag,
    /// Does not tell the host key.
    NoHostKey,
    /// Believes one empty list.
    HastyObserve,
    /// Fails to delete what is not there.
    FailsOnAbsence,
    /// Tells no images.
    PoorDescribe,
    /// Makes a changing call in a request that only looks.
    Touchy,
    /// Creates before it has claimed its run.
    NoClaim,
    /// Never looks at the owner a second time.
    NeverRenews,
    /// Puts a zone of its own in the place of an unknown one.
    OwnZone,
    /// Does not pass on how long the cloud wants to be left alone.
    LostWish,
    /// Takes 503 for a mistake of the user.
    FinalOutage,
    /// Gives up a call after a second, as something that passes.
    ShortCalls,
    /// Makes tags of whatever it is told.
    Trusting,
    /// Refuses fields that it does not know.
    Strict,
    /// Reports success when it is told to end.
    LastWords,
    /// Exits with 0 after a failure.
    AllIsWell,
    /// Prints text for people.
    Chatty,
    /// Logs its key.
    Leaky,
}

/// What goes wrong before the request is run; an exit code where that is all.
pub(super) async fn before(fault: Option<Fault>) -> Option<ExitCode> {
    let request = std::env::var(ENV_REQUEST).unwrap_or_default();
    match fault? {
        Fault::Chatty => println!("hello from the small cloud"),
        Fault::NoClaim => create_at_once(&request).await,
        Fault::Strict if request.contains("sinceNextRelease") => {
            leave(r#"{"class":"Invalid","reason":"BadRequest","message":"unknown field sinceNextRelease"}"#);
            return Some(ExitCode::FAILURE);
        }
        Fault::LastWords => {
            tokio::spawn(async {
                if let Ok(mut end) = signal(SignalKind::terminate()) {
                    end.recv().await;
                    leave(r#"{"reason":"Succeeded"}"#);
                    std::process::exit(0);
                }
            });
        }
        _ => {}
    }
    None
}

async fn create_at_once(request: &str) {
    use provisioning_sdk::request::{Envelope, ProviderRequest};
    let Ok(envelope) = serde_json::from_str::<Envelope<ProviderRequest>>(request) else { return };
    let (Ok(cloud), ProviderRequest::Create { creation, .. }) =
        (super::Cloud::from_environment(None), &envelope.payload)
    else {
        return;
    };
    let wanted = serde_json::json!({"zone": creation.zone, "image": creation.image, "cores": creation.cores});
    // Whatever comes of it.
    drop(cloud.create(wanted, Some("at-once")).await);
}

fn leave(result: &str) {
    if let Some(file) = std::env::var_os(ENV_TERMINATION_LOG) {
        drop(std::fs::write(file, result));
    }
}

/// The exit code, or another one.
pub(super) fn after(fault: Option<Fault>, code: ExitCode) -> ExitCode {
    if fault == Some(Fault::AllIsWell) { ExitCode::SUCCESS } else { code }
}

/// The class of an answer, or another one.
pub(super) fn misread(fault: Option<Fault>, code: Option<u16>, class: FailureClass) -> FailureClass {
    match (fault, code) {
        (Some(Fault::WrongClass), Some(401)) => FailureClass::Transient,
        (Some(Fault::FinalOutage), Some(503)) => FailureClass::Invalid,
        _ => class,
    }
}
