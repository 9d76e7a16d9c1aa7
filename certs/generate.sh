#!/bin/sh
# Makes a CA, a server certificate and a client certificate to try TLS with. See README.md beside this file.
set -eu

usage() {
    cat <<'USAGE'
usage: certs/generate.sh [options]
  --out DIR        where the files go (default: certs/out beside this script)
  --server NAMES   further names of the server, comma-separated: DNS names or IP addresses
                   (localhost, 127.0.0.1 and ::1 are always in)
  --client NAME    common name of the client certificate (default: client); also the name of its files
  --days N         how long server and client certificates are valid (default: 365; the CA: ten times that)
  --new-ca         make a new CA even if there is one; certificates of the old one are then worth nothing
USAGE
}

fail() {
    printf 'generate.sh: %s\n' "$1" >&2
    exit 1
}

out=$(dirname "$0")/out
names=
client=client
days=365
new_ca=no
while [ $# -gt 0 ]; do
    case $1 in
        --out | --server | --client | --days)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --out) out=$2 ;;
                --server) names=$2 ;;
                --client) client=$2 ;;
                --days) days=$2 ;;
            esac
            shift 2
            ;;
        --new-ca) new_ca=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown option $1" ;;
    esac
done

command -v openssl >/dev/null 2>&1 || fail "openssl is not installed"
# Names go into file names and into openssl's configuration: no character that means something there.
case $client in
    '' | -* | .* | *[!A-Za-z0-9._-]*) fail "--client: letters, digits, '.', '_' and '-' only" ;;
    ca | server) fail "--client: '$client' is the name of another file" ;;
esac
case $names in *[!A-Za-z0-9.:,*_-]*) fail "--server: DNS names and IP addresses, separated by commas" ;; esac
case $days in '' | *[!0-9]* | 0*) fail "--days: a whole number above 0" ;; esac

# Private keys are never readable by others, not even while they are being written.
umask 077
mkdir -p "$out"
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

sans=DNS:localhost,IP:127.0.0.1,IP:::1
old_ifs=$IFS
IFS=,
set -f
for name in $names; do
    case $name in
        '') ;;
        *:*) sans=$sans,IP:$name ;;
        *[!0-9.]*) sans=$sans,DNS:$name ;;
        *) sans=$sans,IP:$name ;;
    esac
done
set +f
IFS=$old_ifs

cat >"$work/openssl.cnf" <<CONFIG
[req]
distinguished_name = subject
[subject]
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $sans
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:$client
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CONFIG

# quietly COMMAND...: openssl talks much; it is heard when it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "openssl failed"
    }
}

key() {
    quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1.key"
}

# issue FILE NAME KIND: a certificate for NAME, signed by the CA.
issue() {
    key "$1"
    quietly openssl req -new -config "$work/openssl.cnf" -key "$work/$1.key" -subj "/CN=$2" -out "$work/$1.csr"
    quietly openssl x509 -req -in "$work/$1.csr" -CA "$out/ca.crt" -CAkey "$out/ca.key" \
        -set_serial "0x$(openssl rand -hex 15)" -days "$days" -sha256 \
        -extfile "$work/openssl.cnf" -extensions "$3" -out "$work/$1.crt"
    install_pair "$1"
}

# Both files appear whole, or not at all.
install_pair() {
    chmod 600 "$work/$1.key"
    chmod 644 "$work/$1.crt"
    mv "$work/$1.key" "$out/$1.key"
    mv "$work/$1.crt" "$out/$1.crt"
}

if [ "$new_ca" = yes ] || [ ! -f "$out/ca.key" ] || [ ! -f "$out/ca.crt" ]; then
    key ca
    quietly openssl req -new -x509 -config "$work/openssl.cnf" -extensions ca -key "$work/ca.key" \
        -subj "/CN=TernMQ trial CA" -set_serial "0x$(openssl rand -hex 15)" -days "$((days * 10))" -sha256 \
        -out "$work/ca.crt"
    install_pair ca
fi
issue server localhost server
issue "$client" "$client" client

printf 'in %s: ca.crt, server.crt, server.key, %s.crt, %s.key (and ca.key: keep it to yourself)\n' \
    "$out" "$client" "$client"
