//! The port to users: who are an order's customers, and may they order?

mod grpc;
mod http;
mod remote;
pub mod replica;
mod shadow;

use chassis::remote::Remote;
use clap::ValueEnum;
use uuid::Uuid;

use crate::error::Error;
pub use remote::Users;
use shadow::Shadow;

/// Users that one call may ask for.
const BATCH: usize = 100;

/// The dial `CUSTOMERS_VIA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The published view `customers` in the service's own database: joined in the statement that reads the order, and
    /// guarding the one that places it.
    Local,
    /// The users service, asked by HTTP: after an order was read, and before one is placed.
    Http,
    /// The same, asked by gRPC.
    Grpc,
}

/// The dial `CUSTOMERS_SHADOW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShadowVia {
    /// The users service, asked by HTTP.
    Http,
    /// The users service, asked by gRPC.
    Grpc,
}

/// Who placed an order, as orders sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// The user's id.
    pub id: Uuid,
    /// The user's name.
    pub name: String,
    /// `active` or `deactivated`.
    pub status: String,
    /// The user's version.
    pub version: i64,
}

/// What is known of an order's customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Who it is.
    Found(Customer),
    /// There is no such user.
    Unknown,
    /// Users cannot be asked at this moment.
    Unavailable,
}

impl From<Option<Customer>> for Lookup {
    fn from(customer: Option<Customer>) -> Self {
        customer.map_or(Self::Unknown, Self::Found)
    }
}

/// The port as the dials have set it.
#[derive(Debug, Clone)]
pub struct Customers {
    /// Asked in any case when the view has not heard of a user yet.
    users: Users,
    in_view: bool,
    shadow: Option<Shadow>,
}

impl Customers {
    /// The port by the view. Users itself is asked only where that is a replica which has not heard of somebody yet.
    pub fn local(users: Users) -> Self {
        Self { users, in_view: true, shadow: None }
    }

    /// The port by calls to users.
    pub fn remote(users: Users) -> Self {
        Self { users, in_view: false, shadow: None }
    }

    /// Compares the answers with what another way to users gives.
    #[must_use]
    pub fn shadowed_by(self, users: Users) -> Self {
        Self { shadow: Some(Shadow::new(users)), ..self }
    }

    /// Whether statements on orders join the view `customers`.
    pub fn in_view(&self) -> bool {
        self.in_view
    }

    /// The neighbours that are asked.
    pub fn remotes(&self) -> Vec<Remote> {
        let users = (!self.in_view).then(|| self.users.remote());
        users.into_iter().chain(self.shadow.as_ref().map(Shadow::remote)).cloned().collect()
    }

    /// The customer of an order that was read; `joined` is what its statement found.
    pub async fn of(&self, user_id: Uuid, joined: Option<Customer>) -> Lookup {
        self.of_all(vec![(user_id, joined)]).await.pop().unwrap_or(Lookup::Unavailable)
    }

    /// The customers of a page of orders, in the same order, in one call at most.
    pub async fn of_all(&self, orders: Vec<(Uuid, Option<Customer>)>) -> Vec<Lookup> {
        if !self.in_view {
            return self.users.find(&orders.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await;
        }
        if let Some(shadow) = &self.shadow {
            shadow.compare(&orders);
        }
        orders.into_iter().map(|(_, joined)| joined.into()).collect()
    }

    /// The customer of an order that was just placed: whom [`Customers::admit`] found, or the statement.
    pub fn of_placed(&self, user_id: Uuid, admitted: Option<Customer>, joined: Option<Customer>) -> Option<Customer> {
        if let Some(shadow) = &self.shadow {
            shadow.compare(&[(user_id, joined.clone())]);
        }
        admitted.or(joined)
    }

    /// Asks whether the user may order, before a statement is sent; `None` if the statement itself will ask.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::UserDeactivated`], [`Error::CustomersUnavailable`].
    pub async fn admit(&self, user_id: Uuid) -> Result<Option<Customer>, Error> {
        if self.in_view {
            return Ok(None);
        }
        match self.ask(user_id).await? {
            customer if customer.status != "active" => Err(Error::UserDeactivated),
            customer => Ok(Some(customer)),
        }
    }

    /// Asks users who this is.
    ///
    /// # Errors
    /// [`Error::UnknownUser`], [`Error::CustomersUnavailable`].
    pub async fn ask(&self, user_id: Uuid) -> Result<Customer, Error> {
        self.users.find_one(user_id).await?.ok_or(Error::UnknownUser)
    }
}
