//! A private RabbitMQ: a server on 127.0.0.1, on free ports, with a password and an Erlang port mapper of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;
use uuid::Uuid;

use crate::postgres::owner::{make_folder, server_user};
use crate::process::{Leashed, free_address};

/// How long the server may take to start, recovery after a crash included. It shares the machine with other tests.
const START: Duration = Duration::from_secs(120);
/// Where packages put the server. Its wrapper in `/usr/sbin` would choose user, folders and logs itself.
const PROGRAMS: [&str; 2] = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server"];
/// What the server logs when it serves.
const STARTED: &str = "Server startup complete";
/// The user of the server.
const USER: &str = "dev";

/// A private server. It ends when this value is dropped or this process ends, even by `kill -9`, and leaves nothing behind.
pub struct Server {
    program: PathBuf,
    user: Option<User>,
    folder: TempDir,
    password: String,
    ports: Ports,
    server: Option<Leashed>,
    _port_mapper: Leashed,
}

struct Ports {
    amqp: u16,
    amqps: u16,
    nodes: u16,
    mapper: u16,
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// If there is no program, or the server does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with these lines in its configuration, such as `max_message_size = 100000`.
    ///
    /// # Errors
    /// If there is no program, or the server does not start.
    pub fn start_with(settings: &[&str]) -> Result<Self> {
        let program = PROGRAMS
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .context("RabbitMQ was not found: install it (apt install rabbitmq-server)")?;
        let user = server_user().context("choosing the user that runs RabbitMQ")?;
        let folder = tempfile::Builder::new().prefix("dev-rabbitmq-").tempdir().context("making a temporary folder")?;
        make_folder(folder.path(), user.as_ref()).context("giving the folder to the server's user")?;
        let [amqp, amqps, nodes, mapper] = [(); 4].map(|()| free_address().port());
        let ports = Ports { amqp, amqps, nodes, mapper };
        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &mapper.to_string()]);
        let log = File::create(folder.path().join("epmd.log")).context("making a log")?;
        let port_mapper = Leashed::start_as(user.as_ref(), &epmd, Signal::SIGKILL, None, log).context("starting epmd")?;
        let password = Uuid::new_v4().simple().to_string();
        let mut server = Self { program, user, folder, password, ports, server: None, _port_mapper: port_mapper };
        server.configure(settings)?;
        server.start_again()?;
        Ok(server)
    }

    fn configure(&self, settings: &[&str]) -> Result<()> {
        let path = self.folder.path();
        make_certificates(path)?;
        let Ports { amqp, amqps, .. } = self.ports;
        let (password, folder) = (&self.password, path.display());
        let own = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             listeners.ssl.1 = 127.0.0.1:{amqps}\n\
             ssl_options.cacertfile = {folder}/ca.pem\n\
             ssl_options.certfile = {folder}/server.pem\n\
             ssl_options.keyfile = {folder}/server.key\n\
             default_user = {USER}\n\
             default_pass = {password}\n\
             log.console = true\n\
             log.console.level = info\n\
             log.file = false\n\
             disk_free_limit.absolute = 1MB\n"
        );
        fs::write(path.join("rabbitmq.conf"), own + &settings.join("\n") + "\n").context("writing the configuration")?;
        fs::write(path.join("enabled_plugins"), "[].\n").context("writing the list of plugins")
    }

    /// Starts the server again, on the same ports, after [`Server::stop`].
    ///
    /// # Errors
    /// If the server does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let path = self.folder.path();
        let log = File::create(path.join("server.log")).context("making the server's log")?;
        let command = self.command(&self.program, &[]);
        let server = Leashed::start_as(self.user.as_ref(), &command, Signal::SIGKILL, Some(path), log);
        self.server = Some(server.with_context(|| format!("starting {}", self.program.display()))?);
        let deadline = Instant::now() + START;
        while !self.log().contains(STARTED) {
            let ended = match &mut self.server {
                Some(server) => server.ended().context("watching the server")?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                bail!("RabbitMQ did not start. Its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A program of RabbitMQ, with the variables of this server. The leash and `sudo` pass no variables on, so `env` does.
    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let folder = self.folder.path().display();
        let Ports { nodes, mapper, .. } = self.ports;
        let mut command = Command::new("/usr/bin/env");
        command.args(["-i", "PATH=/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin", "LC_ALL=C.UTF-8"]);
        for variable in [
            format!("HOME={folder}"),
            format!("ERL_EPMD_PORT={mapper}"),
            "ERL_EPMD_ADDRESS=127.0.0.1".to_owned(),
            // Its shell is then replaced by the server, which can be killed.
            "RUNNING_UNDER_SYSTEMD=yes".to_owned(),
            format!("RABBITMQ_CONF_ENV_FILE={folder}/none"),
            "RABBITMQ_NODENAME=dev@localhost".to_owned(),
            format!("RABBITMQ_DIST_PORT={nodes}"),
            format!("RABBITMQ_MNESIA_BASE={folder}/data"),
            format!("RABBITMQ_LOG_BASE={folder}/log"),
            format!("RABBITMQ_CONFIG_FILE={folder}/rabbitmq.conf"),
            format!("RABBITMQ_ENABLED_PLUGINS_FILE={folder}/enabled_plugins"),
            format!("RABBITMQ_PID_FILE={folder}/pid"),
        ] {
            command.arg(variable);
        }
        command.arg(program).args(arguments);
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Kills the server. Its data stays, for [`Server::start_again`].
    ///
    /// # Errors
    /// The system's.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        // Letting go of its leash would delete the folder.
        let id = fs::read_to_string(self.folder.path().join("pid"))?;
        kill(Pid::from_raw(id.trim().parse().map_err(io::Error::other)?), Signal::SIGKILL)?;
        server.wait().map(drop)
    }

    /// Ends the server as its operator would, and starts it again.
    ///
    /// # Errors
    /// If it does not end, or does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.control(&["stop"])?;
        if let Some(server) = self.server.take() {
            server.wait().context("waiting for the server's end")?;
        }
        self.start_again()
    }

    /// The URL of its first virtual host.
    pub fn url(&self) -> String {
        format!("amqp://{USER}:{}@127.0.0.1:{}/%2f", self.password, self.ports.amqp)
    }

    /// The same by TLS. The certificate is for `localhost`, and [`Server::ca_file`] has its authority.
    pub fn tls_url(&self) -> String {
        format!("amqps://{USER}:{}@localhost:{}/%2f", self.password, self.ports.amqps)
    }

    /// The certificate of the authority that the server's certificate is from.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Runs `rabbitmqctl`: what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.with_file_name("rabbitmqctl");
        let tool = self.command(&program, &[&["--silent"], arguments].concat());
        let mut command = crate::postgres::owner::command(Path::new(tool.get_program()), self.user.as_ref());
        let output = command.args(tool.get_args()).stdin(Stdio::null()).output().context("starting rabbitmqctl")?;
        ensure!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// An authority, and a certificate of the server for `localhost`.
fn make_certificates(folder: &Path) -> Result<()> {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
        chmod 644 server.key";
    let mut shell = Command::new("/bin/sh");
    let output = shell.args(["-ec", script]).current_dir(folder).output().context("making certificates")?;
    ensure!(output.status.success(), "certificates could not be made: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A drop cannot return an error.
            let _ = server.stop();
        }
    }
}
