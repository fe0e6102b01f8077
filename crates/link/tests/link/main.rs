//! The link over real sockets on loopback: dialled by our dialler, accepted behind a hyper server as in production.
//!
//! One binary, a module per behaviour. Certificates are made in the test, ports are the system's choice.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod binding;
#[cfg(test)]
mod dialling;
#[cfg(test)]
mod establishing;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod streams;
