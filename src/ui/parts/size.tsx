/** How much of something is used. */

/** A bar with its words beside it. */
export function Bar({ share, label }: { share: number; label: string }) {
  return (
    <span class="bar">
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect class="all" width="100" height="6" />
        <rect class={share > 0.9 ? "much" : "part"} width={Math.min(100, share * 100)} height="6" />
      </svg>
      <span class="num">{label}</span>
    </span>
  );
}
