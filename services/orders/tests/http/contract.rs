//! The contract of the events: `contract/`.

use orders::events::TYPES;

use crate::support::CONTRACT;

#[test]
fn the_contract_has_a_schema_for_every_type_that_is_published_and_for_no_other() {
    CONTRACT.has_the_types(TYPES);
}

#[test]
fn the_examples_of_the_contract_fit_it() {
    CONTRACT.fits_its_examples();
}

#[test]
fn an_event_that_lacks_a_field_or_has_another_one_does_not_fit_the_contract() {
    CONTRACT.demands_every_field_but(&["cancel_reason"]);
}
