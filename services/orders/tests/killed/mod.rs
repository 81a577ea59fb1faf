//! The real program of orders, which a test kills and starts again.

use std::process::{Child, Command, Stdio};

use dev::postgres::ORDERS_ROLE;
use tempfile::TempDir;

use crate::support::Service;

/// The program. It ends with the test, however that ends.
pub struct Program(Child);

impl Program {
    /// Starts it in a folder of its own. The variables say how it reads the events of users.
    pub fn start(folder: &TempDir, service: &Service, users: &str, variables: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
        command.env_clear().current_dir(folder.path());
        command.env("ORDERS_DATABASE_URL", service.database.url_as(ORDERS_ROLE)).env("ORDERS_ADDR", "127.0.0.1:0");
        command.envs(variables.iter().map(|(name, value)| (name, value))).env("USERS_URL", users);
        command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the program starts"))
    }

    pub fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}
