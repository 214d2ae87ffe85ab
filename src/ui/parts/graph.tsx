/** Lines of figures, as plain SVG. */

const WIDTH = 300;

/** Points of a line, from the left; the newest at the right edge. */
function pointsOf(values: readonly number[], most: number, height: number, places: number): string {
  const step = WIDTH / (places - 1);
  const first = places - values.length;
  return values
    .map((value, at) => {
      const y = height - 1 - (Math.min(value, most) / most) * (height - 2);
      return `${((first + at) * step).toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

/**
 * A line, filled below.
 * @param label what it shows and how much it is now, for those who cannot see it
 */
export function Graph(props: {
  values: readonly number[];
  /** The value at the upper edge. */
  most: number;
  label: string;
  height?: number;
  /** How many values fit. */
  places?: number;
}) {
  const { most, label, height = 64, places = 60 } = props;
  const values = props.values.slice(-places);
  const points = pointsOf(values, Math.max(most, 1e-9), height, places);
  const left = ((places - values.length) * WIDTH) / (places - 1);
  return (
    <svg
      class="graph"
      viewBox={`0 0 ${WIDTH} ${height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <path class="grid" d={`M0,${height - 0.5}H${WIDTH}`} vector-effect="non-scaling-stroke" />
      {height > 40 && (
        <path
          class="grid faint"
          d={`M0,${height / 2}H${WIDTH}M0,0.5H${WIDTH}`}
          vector-effect="non-scaling-stroke"
        />
      )}
      {values.length > 1 && (
        <>
          <polygon points={`${left.toFixed(1)},${height} ${points} ${WIDTH},${height}`} />
          <polyline points={points} vector-effect="non-scaling-stroke" />
        </>
      )}
    </svg>
  );
}
