/** As whom a container's commands run, in the agent's words. */

/** A user with further groups, by number or by the guest's names. @param user empty: root */
export function withGroups(user: string, groups: readonly (number | string)[]): string {
  if (groups.length === 0) return user;
  const [name = "", group = ""] = user.split(":");
  return `${name === "" ? "0" : name}:${[group, ...groups].join(",")}`;
}
