#!/bin/sh
# What AWS has that pushes keys to its instances, made with the real openssl.
#
#   aws_signer.sh make DIR NAME DAYS   a root, an authority below it, a signer called NAME, and OCSP answers good for DAYS
#   aws_signer.sh sign DIR [SALT]      reads the lines of a pushed key, writes them with the signature behind them
set -eu

what=$1
cd "$2"

if [ "$what" = sign ]; then
    cat > block
    openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt "rsa_pss_saltlen:${3:-32}" -sign signer.key -out block.sig block
    cat block
    base64 -w 76 block.sig
    exit
fi

name=$3 days=$4
cat > extensions <<'END'
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[signer]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
[responder]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = OCSPSigning
END

# FILE SUBJECT AUTHORITY SERIAL EXTENSIONS
certify() {
    openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2> errors
    openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -set_serial "$4" -days 3650 \
        -extfile extensions -extensions "$5" -out "$1.pem" 2> errors
}

openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 3650 -subj '/O=Munjigi Test/CN=Root' \
    -config /dev/null -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2> errors
certify authority '/O=Munjigi Test/CN=Authority' root 0x1001 authority
certify signer "/C=US/O=Munjigi Test/CN=$name" authority 0x2001 signer
certify other '/O=Munjigi Test/CN=other' authority 0x2002 signer
certify responder '/O=Munjigi Test/CN=Responder' authority 0x2003 responder
cat signer.pem authority.pem root.pem > chain.pem
cat other.pem authority.pem root.pem > other-chain.pem

# FILE CERTIFICATE ISSUER RESPONDER STATUS SERIAL [HASH]
answer() {
    case $5 in
    good) printf 'V\t491231235959Z\t\t%s\tunknown\t/CN=x\n' "$6" ;;
    revoked) printf 'R\t491231235959Z\t250101000000Z\t%s\tunknown\t/CN=x\n' "$6" ;;
    unknown) : ;;
    esac > index
    openssl ocsp ${7:-} -issuer "$3.pem" -cert "$2.pem" -no_nonce -reqout request.der > errors 2>&1
    openssl ocsp -index index -CA "$3.pem" -rsigner "$4.pem" -rkey "$4.key" -reqin request.der -respout "$1.der" -ndays "$days" \
        > errors 2>&1
}

answer signer-good signer authority authority good 2001
answer signer-sha256 signer authority authority good 2001 -sha256
answer signer-delegated signer authority responder good 2001
answer signer-revoked signer authority authority revoked 2001
answer signer-unknown signer authority authority unknown 2001
# By a certificate of the same authority that is not for it.
answer signer-stranger signer authority other good 2001
answer other-good other authority authority good 2002
answer authority-good authority root root good 1001
for certificate in signer authority other; do
    for hash in sha1 sha256; do
        openssl x509 -in $certificate.pem -noout -fingerprint -$hash | sed 's/.*=//; s/://g' | tr -d '\n' > $certificate.$hash
    done
done
