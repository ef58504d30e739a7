// Draws: node draw.mjs <OPTION.json >PICTURE.svg. OPTION is what ECharts takes, with `width` and `height` beside it.
import { text } from 'node:stream/consumers';
import { init } from 'echarts/dist/echarts.esm.min.mjs'; // one file, and not the hundreds of 'echarts'

const { width, height, ...option } = JSON.parse(await text(process.stdin));
const chart = init(null, null, { renderer: 'svg', ssr: true, width, height });
chart.setOption({ ...option, animation: false });
process.stdout.write(chart.renderToSVGString());
chart.dispose(); // or the process would not end
