//! The log `user_events`, and the tables `users_cursors` and `users_parked_events`.

use shared_db::run;

use crate::App;
use crate::error::Error;

chassis::event_store!(App, run, Error, "user", "users");
