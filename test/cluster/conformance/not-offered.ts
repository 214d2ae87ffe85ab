/** Kubernetes' tests that are of what vmsan's pods are not (docs/cluster.md); each pattern matches a test's whole name. */
const NOT_OFFERED: readonly { pattern: string; why: string }[] = [
  { pattern: "InitContainer|init container", why: "a pod is one container: no init containers" },
  {
    pattern: "Ephemeral Containers",
    why: "a pod is one container: none is added to one that runs",
  },
  { pattern: "InPlace Resize", why: "a VM's size does not change while it runs" },
  {
    pattern: "Container Lifecycle Hook when create a pod with lifecycle hook",
    why: "a pod is one container, and these have a sidecar",
  },
  {
    pattern: "pod generation should start at 1 and increment",
    why: "a pod is one container, and this one has an init container",
  },
  { pattern: "ImageVolume", why: "no volumes of images" },
  {
    pattern:
      "shared volumes between containers|binary data should be reflected|optional updates should be|KubeletManagedEtcHosts",
    why: "a pod is one container, and these have several",
  },
  { pattern: "\\[sig-network\\]", why: "pods are not on the cluster's network" },
  {
    pattern: "PreStop should call prestop when killing a pod",
    why: "pods are not on the cluster's network: one does not reach the other",
  },
  {
    pattern:
      "run the container as unprivileged when false|should not allow privilege escalation when false",
    why: "root in a VM may do all there is in it: the VM is the boundary",
  },
  { pattern: "name, namespace and IP address", why: "a pod has no IP" },
  {
    pattern:
      "SchedulerPreemption.*(preemption works|critical pod|pod disruption condition|preemption running path)",
    why: "their pods ask for resources of the test's own",
  },
  {
    pattern: "Update Demo|Guestbook|Kubectl expose|environment variables for services",
    why: "Services do not select these pods",
  },
];

/** Why a test is not run; undefined: it is. */
export function reasonFor(name: string): string | undefined {
  return NOT_OFFERED.find(({ pattern }) => new RegExp(pattern).test(name))?.why;
}

/** Why tests fail that are run, as far as that is known. */
export const FAILING: readonly { pattern: string; why: string }[] = [
  {
    pattern: "should not write to root filesystem",
    why: "its root is read-only; the shell of the image that stands in for BusyBox's says so in other words",
  },
  {
    pattern: "restarted with a tcp:8080 liveness probe",
    why: "one answer that takes longer than a second ends the container, and guests that boot beside it take its emulated processor",
  },
];
