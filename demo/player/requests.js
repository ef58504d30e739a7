// Notes the size of each answer, by URL. Comes before shaka-player, which keeps the fetch that it finds.
'use strict';

window.requests = { sizes: new Map() };
{
  const fetched = window.fetch;
  window.fetch = async (resource, options) => {
    const response = await fetched(resource, options);
    window.requests.sizes.set(response.url, Number(response.headers.get('content-length')));
    return response;
  };
}
