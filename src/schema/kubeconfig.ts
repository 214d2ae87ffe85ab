/** Kubeconfig files, as people and tools write them: what is not used here may be anything. */
import * as z from "zod";

const text = z.string().max(1 << 20);

const cluster = z.looseObject({
  server: text,
  "certificate-authority": text.optional(),
  "certificate-authority-data": text.optional(),
  "insecure-skip-tls-verify": z.boolean().optional(),
  "tls-server-name": text.optional(),
  "proxy-url": text.optional(),
});

const exec = z.looseObject({
  command: text,
  args: z.array(text).nullish(),
  env: z.array(z.object({ name: text, value: text })).nullish(),
  apiVersion: text.optional(),
  provideClusterInfo: z.boolean().optional(),
});

const user = z.looseObject({
  "client-certificate": text.optional(),
  "client-certificate-data": text.optional(),
  "client-key": text.optional(),
  "client-key-data": text.optional(),
  token: text.optional(),
  tokenFile: text.optional(),
  username: text.optional(),
  password: text.optional(),
  exec: exec.nullish(),
  "auth-provider": z.unknown().optional(),
});

const context = z.looseObject({
  cluster: text,
  user: text.optional(),
  namespace: text.optional(),
});

/** A kubeconfig file. */
export const kubeconfigSchema = z.looseObject({
  "current-context": text.nullish(),
  clusters: z.array(z.looseObject({ name: text, cluster })).nullish(),
  users: z.array(z.looseObject({ name: text, user: user.nullish() })).nullish(),
  contexts: z.array(z.looseObject({ name: text, context })).nullish(),
});

/** What a plugin that hands out credentials prints. */
export const execCredentialSchema = z.looseObject({
  kind: z.literal("ExecCredential"),
  status: z.looseObject({
    expirationTimestamp: text.optional(),
    token: text.optional(),
    clientCertificateData: text.optional(),
    clientKeyData: text.optional(),
  }),
});

/** A certificate with its key, PEM. */
export const keyedCertificateSchema = z.object({ cert: text, key: text });

/** Who a host is in a cluster that it has joined. */
export const joinedSchema = z.object({ url: text, ca: text, cert: text, key: text });

/** Who a host is in a cluster that it has joined. */
export type Joined = z.infer<typeof joinedSchema>;
/** A kubeconfig file. */
export type Kubeconfig = z.infer<typeof kubeconfigSchema>;
/** A user of one. */
export type KubeconfigUser = z.infer<typeof user>;
