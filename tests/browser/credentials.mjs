// Credentials as an app signs them.

import { createHmac } from "node:crypto";

/** The secret of tokens; with it `[[access.jwt]]` is for HS256. */
export const SECRET = "0123456789abcdef0123456789abcdef";

/** The key of signed names. */
export const SIGNER = "fedcba9876543210fedcba9876543210";

/** A token with these claims that counts for so many seconds. */
export function token(claims, seconds = 600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ ...claims, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

/** The signed name of a channel, as Rails makes it. */
export function signed(name) {
  const text = Buffer.from(JSON.stringify(name)).toString("base64");
  return `${text}--${createHmac("sha256", SIGNER).update(text).digest("hex")}`;
}
