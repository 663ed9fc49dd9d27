//! Images made by the tests themselves.
