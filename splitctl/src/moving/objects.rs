//! The names of a move's objects. All follow from the move, so a command finds what a crash left.

/// The names of a move's objects.
#[derive(Debug, Clone, Default)]
pub struct Names {
    owner_name: String,
    prefix: String,
    publication: String,
}

impl Names {
    /// Names for the move with this number out of the database with this oid: the cluster's slots share one name space.
    pub fn new(owner_name: &str, number: i32, source_database: i64) -> Self {
        Self {
            owner_name: owner_name.to_owned(),
            prefix: format!("splitctl_{source_database}_{owner_name}_{number}_"),
            publication: format!("splitctl_{owner_name}_{number}"),
        }
    }

    /// The slot and the subscription of a stream.
    pub fn stream(&self, number: i64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// The role that applies the changes, where that is not splitctl's own.
    pub fn applier(&self) -> String {
        format!("{}applier", self.prefix)
    }

    /// The publication of both sides.
    pub fn publication(&self) -> &str {
        &self.publication
    }

    /// The owner's name in the manifest.
    pub fn owner(&self) -> &str {
        &self.owner_name
    }

    /// A `like` pattern for all streams of the move.
    pub fn all_streams(&self) -> String {
        escape(&self.prefix) + "%"
    }
}

/// A `like` pattern for one name, in which only the underscore is special.
pub fn escape(name: &str) -> String {
    name.replace('_', r"\_")
}
