//! The accounts, the creator and the room of the demo.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::accounts::{self, CreateOperatorError, Handle, HandleError, NewOperator};
use crate::app::App;
use crate::broadcasts::{self, AddKeyError};
use crate::creators::{self, NewCreator};
use crate::ids::RoomId;
use crate::rooms::{self, NewRoom};

/// Tried one after the other when a former demo left its handles behind.
const HANDLES_MAX: u32 = 100;

/// What stays the same over restarts. Holds secrets.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Seed {
    pub(super) room: RoomId,
    pub(super) stream_key: String,
    pub(super) operator_token: String,
}

/// Why the demo could not be seeded.
#[derive(Debug, thiserror::Error)]
pub(in crate::serve) enum SeedError {
    #[error("reading or writing {0}")]
    File(PathBuf, #[source] io::Error),
    #[error("no handle is left for the demo; remove its data directory to start afresh")]
    NoHandle,
    #[error(transparent)]
    Operator(#[from] CreateOperatorError),
    #[error(transparent)]
    Handle(#[from] HandleError),
    #[error(transparent)]
    Creator(#[from] creators::CreateError),
    #[error(transparent)]
    Room(#[from] rooms::CreateError),
    #[error(transparent)]
    Key(#[from] AddKeyError),
    #[error("reading the demo's records")]
    Db(#[from] sqlx::Error),
}

impl Seed {
    /// The seed of the last run if all of it is still good, else a new one.
    pub(super) async fn load_or_plant(app: &App) -> Result<Self, SeedError> {
        let path = app.config().data_dir.join("demo.json");
        if let Some(seed) = Self::load(&path)?
            && seed.is_good(app).await?
        {
            return Ok(seed);
        }
        let seed = Self::plant(app).await?;
        seed.save(&path)?;
        Ok(seed)
    }

    fn load(path: &Path) -> Result<Option<Self>, SeedError> {
        match fs::read(path) {
            // A file that cannot be read as a seed is replaced by one that can.
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(SeedError::File(path.into(), err)),
        }
    }

    async fn is_good(&self, app: &App) -> sqlx::Result<bool> {
        let has_key = broadcasts::has_key(&app.db, self.room, &self.stream_key).await?;
        let now = app.clock.now();
        Ok(has_key && accounts::key_is_valid(&app.db, &self.operator_token, now).await?)
    }

    async fn plant(app: &App) -> Result<Self, SeedError> {
        let operator = operator(app).await?;
        let now = app.clock.now();
        let mut tx = app.db.begin().await?;
        let wish = NewCreator {
            owner: operator.account,
            handle: Handle::parse(&format!("{}-shop", operator.handle))?,
            kind: creators::Kind::Person,
            name: "Lantern Lane".into(),
            bio: "A small shop that shows what it sells, live.".into(),
            category: "home".into(),
        };
        let creator = creators::create(&mut tx, now, wish).await?;
        let wish = NewRoom::open_ended(creator.id, "Open studio: the test pattern show");
        let room = rooms::create(&mut tx, now, wish).await?;
        let key = broadcasts::add_key(&mut tx, room, now).await?;
        tx.commit().await?;
        Ok(Self {
            room,
            stream_key: key.secret,
            operator_token: operator.api_key,
        })
    }

    /// Written whole beside the old file and then put in its place, so that a crash leaves one.
    fn save(&self, path: &Path) -> Result<(), SeedError> {
        let io = |err| SeedError::File(path.into(), err);
        let text = serde_json::to_vec_pretty(self).map_err(|err| io(err.into()))?;
        let fresh = path.with_extension("json.new");
        match fs::remove_file(&fresh) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(io(err)),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(io)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&fresh, path))
            .map_err(io)
    }
}

async fn operator(app: &App) -> Result<NewOperator, SeedError> {
    for n in 1..=HANDLES_MAX {
        let handle = if n == 1 {
            "demo".to_owned()
        } else {
            format!("demo-{n}")
        };
        match accounts::create_operator(app, &handle).await {
            Err(CreateOperatorError::Taken(_)) => {}
            done => return Ok(done?),
        }
    }
    Err(SeedError::NoHandle)
}
