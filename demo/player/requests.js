// Notes the size of each answer, and which requests the player gave up itself, by URL. Comes before shaka-player, which keeps the fetch that it finds.
'use strict';

window.requests = { sizes: new Map(), givenUp: new Set() };
{
  const fetched = window.fetch;
  window.fetch = async (resource, options) => {
    const response = await fetched(resource, options).catch((e) => {
      if (e.name === 'AbortError') window.requests.givenUp.add(new URL(resource.url || resource, location).href);
      throw e;
    });
    window.requests.sizes.set(response.url, Number(response.headers.get('content-length')));
    return response;
  };
}
