//! The gauges of a service's database.

use crate::database::Database;
use crate::switches::Side;

impl Database {
    /// Sets the gauges of the pool in use, and of the newest switch that this process has followed.
    pub fn set_gauges(&self) {
        let pool = self.pool_status();
        metrics::gauge!("db_pool_connections", "state" => "idle").set(pool.idle as f64);
        metrics::gauge!("db_pool_connections", "state" => "used").set((pool.open - pool.idle.min(pool.open)) as f64);
        metrics::gauge!("db_pool_waiting").set(pool.waiting as f64);
        if let Some(switch) = self.known_switch() {
            metrics::gauge!("db_switch_generation").set(switch.generation as f64);
            metrics::gauge!("db_on_target").set(f64::from(u8::from(switch.side == Side::Target)));
        }
    }
}
