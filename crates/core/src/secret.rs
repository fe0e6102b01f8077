//! Secrets as types: they print nothing and are wiped when dropped; the master key and the envelope around secrets at
//! rest (T-100). Where keys come from and where sealed bytes are stored is not decided here.

use std::fmt;

use zeroize::Zeroize;

/// A value that never appears in `Debug` output, logs or errors and is wiped when dropped.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value; the caller keeps no other copy of it.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value itself. Each call is a place where the secret can leak: keep it short.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
