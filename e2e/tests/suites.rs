//! The suites that run side by side on one cluster. A test's name begins with its suite's.

mod bad_input;
mod cel;
mod cli;
mod clusters;
mod docs;
mod extensions;
mod first_light;
mod gitops;
mod health;
mod installed;
mod losses;
mod requests;
mod shop;
mod sizes;
mod support;
mod workflows;
