//! An app without listeners, over a fresh database: what a store or use case needs.

use lamplight_media::broadcast::{Broadcasts, Limits};
use tokio::sync::watch;

use super::{App, Handles, Parts, Phase, Secrets};
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::db::{Db, Folder, NOON, fresh};
use crate::events::Bus;
use crate::tasks::Tasks;

/// Everything but listeners and jobs; its clock stands at [`NOON`].
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) app: App,
    _folder: Folder,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = Folder::new();
        let config = Config::load(&Sources::default()).unwrap();
        let app = App::new(Handles {
            config,
            clock: Clock::standing_at(NOON),
            db: fresh(&folder).await,
            bus: Bus::default(),
            tasks: Tasks::new(),
            media: Broadcasts::new(Limits::default()),
            secrets: Secrets::open(folder.path()).unwrap(),
            phase: watch::Sender::new(Phase::Running),
            parts: Parts::default(),
        });
        Self {
            app,
            _folder: folder,
        }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.app.db
    }
}
