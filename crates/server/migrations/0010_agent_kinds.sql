-- Which agent a node runs: ours, or AWS's with an RSA key and a fingerprint of its host.
ALTER TABLE nodes ADD COLUMN agent TEXT NOT NULL DEFAULT 'munjigi';
ALTER TABLE nodes ADD COLUMN fingerprint TEXT;
