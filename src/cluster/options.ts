/** How a cluster is named. */

/** Which cluster, as whom, and where in it; what is left out is as kubectl has it. */
export interface ClusterOptions {
  /** Path; default KUBECONFIG, else ~/.kube/config, else the ServiceAccount of the pod that this process is in. */
  kubeconfig?: string;
  /** Name; default the file's current one. */
  context?: string;
  /** Default the context's. */
  namespace?: string;
}
