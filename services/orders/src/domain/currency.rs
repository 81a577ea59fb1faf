//! The currencies of orders.

use iso_currency::{Currency, Flag};

/// Whether `code`, in upper case, is on ISO 4217's list of active codes (list one, funds and special codes included).
pub fn is_active_currency(code: &str) -> bool {
    let Some(currency) = Currency::from_code(code) else { return false };
    let superseded = currency.flags().iter().any(|flag| matches!(flag, Flag::Superseded(_)));
    // The crate takes VES for superseded by VED. On ISO's list both are active.
    currency.code() == code && (!superseded || currency == Currency::VES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_active_codes_in_upper_case_are_currencies() {
        for code in ["EUR", "USD", "JPY", "VES", "VED", "XCG", "XXX"] {
            assert!(is_active_currency(code), "{code}");
        }
        for code in ["eur", "EURO", "DEM", "HRK", "BGN", "ZZZ", "", "€"] {
            assert!(!is_active_currency(code), "{code}");
        }
    }
}
