# What an app mints with the libraries that it has: one JSON object, with keys, tokens and signed names.

require "json"
require "logger"
require "openssl"
require "active_support"
require "active_support/key_generator"
require "active_support/message_verifier"
require "active_support/core_ext/integer/time"
require "jwt"

SECRET = ARGV.fetch(0)
BASE = ARGV.fetch(1)
now = Time.now.to_i

def public_pem(key)
  key.respond_to?(:public_to_pem) ? key.public_to_pem : key.public_key.to_pem
end

claims = { sub: "42", exp: now + 600, channels: ["room:*"] }
rsa = OpenSSL::PKey::RSA.new(2048)
pss = OpenSSL::PKey::RSA.new(2048)
ec = OpenSSL::PKey::EC.generate("prime256v1")
jwk = JWT::JWK.new(OpenSSL::PKey::RSA.new(2048))
ec_jwk = JWT::JWK.new(OpenSSL::PKey::EC.generate("prime256v1"))

good = {
  "HS256" => JWT.encode(claims, SECRET, "HS256"),
  "HS256 for an audience" => JWT.encode(claims.merge(aud: ["other", "keyrelay"], iss: "app"), SECRET, "HS256"),
  "HS384" => JWT.encode(claims, SECRET, "HS384"),
  "HS512" => JWT.encode(claims, SECRET, "HS512"),
  "RS256" => JWT.encode(claims, rsa, "RS256"),
  "PS256" => JWT.encode(claims, pss, "PS256"),
  "ES256" => JWT.encode(claims, ec, "ES256"),
  "JWKS, RSA" => JWT.encode(claims, jwk.keypair, "RS256", { kid: jwk.kid }),
  "JWKS, EC" => JWT.encode(claims, ec_jwk.keypair, "ES256", { kid: ec_jwk.kid }),
  "with nbf and iat" => JWT.encode(claims.merge(nbf: now - 1, iat: now), SECRET, "HS256")
}
bad = {
  "algorithm: none" => JWT.encode(claims, nil, "none"),
  "signature: HS256 with the public key of RS256" => JWT.encode(claims, public_pem(rsa), "HS256"),
  "signature: RS256 with another key" => JWT.encode(claims, pss, "RS256"),
  "algorithm: RS512 with the key of RS256" => JWT.encode(claims, rsa, "RS512"),
  "signature: an unknown kid" => JWT.encode(claims, jwk.keypair, "RS256", { kid: "../../dev/null" }),
  "expired: over" => JWT.encode(claims.merge(exp: now - 1), SECRET, "HS256"),
  "not-yet-valid: nbf" => JWT.encode(claims.merge(nbf: now + 300), SECRET, "HS256"),
  "no-expiry: no exp" => JWT.encode({ sub: "42" }, SECRET, "HS256"),
  "audience: another" => JWT.encode(claims.merge(aud: "other", iss: "app"), SECRET, "HS256"),
  "issuer: another" => JWT.encode(claims.merge(aud: "keyrelay", iss: "other"), SECRET, "HS256")
}

# Rails since load_defaults 7.0 makes keys with SHA256; this ActiveSupport is older, and makes them with SHA1.
def sha256_key(salt)
  OpenSSL::PKCS5.pbkdf2_hmac(BASE, salt, 1000, 64, OpenSSL::Digest.new("SHA256"))
end

def verifier(key)
  ActiveSupport::MessageVerifier.new(key, digest: "SHA256", serializer: JSON)
end

turbo = verifier(sha256_key("turbo/signed_stream_verifier_key"))
cable_ready = verifier(sha256_key("cable_ready/verifier_key"))
old = verifier(ActiveSupport::KeyGenerator.new(BASE, iterations: 1000).generate_key("turbo/signed_stream_verifier_key"))
own = verifier(SECRET)

signed = {
  "Turbo" => turbo.generate("room:turbo"),
  "Turbo in an old app" => old.generate("room:old"),
  "CableReady" => cable_ready.generate("room:cable_ready"),
  "a key of its own" => own.generate("room:own"),
  "a name beyond ASCII" => own.generate("room:Grüße <&>\u2028 ?>~"),
  "for a purpose, with an end" => own.generate("room:live", purpose: :live, expires_in: 10.minutes),
  "with an end alone" => turbo.generate("room:short", expires_at: Time.now + 600)
}
bad_signed = {
  "expired: over" => own.generate("room:x", purpose: :live, expires_at: Time.now - 5),
  "purpose: another" => own.generate("room:x", purpose: :other),
  "purpose: Turbo with one" => turbo.generate("room:x", purpose: :live),
  "signature: another salt" => verifier(sha256_key("signed cookie")).generate("room:x"),
  "malformed: Marshal" => ActiveSupport::MessageVerifier.new(SECRET, digest: "SHA256", serializer: Marshal).generate("room:x"),
  "malformed: SHA1" => ActiveSupport::MessageVerifier.new(SECRET, digest: "SHA1", serializer: JSON).generate("room:x"),
  "malformed: a number" => own.generate(7)
}

puts JSON.generate(
  rs256: public_pem(rsa), ps256: public_pem(pss), es256: public_pem(ec),
  jwks: { keys: [jwk.export, ec_jwk.export] },
  good: good, bad: bad, signed: signed, bad_signed: bad_signed
)
