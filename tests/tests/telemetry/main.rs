//! What the service tells of itself, held against the catalogue of what it says that it tells: on the wire, on `/metrics`, in
//! the documentation.

mod catalogue;
mod docs;
mod life;
mod reality;
mod sources;
mod watched;
