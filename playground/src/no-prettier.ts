/** Stands where the GraphQL worker would load Prettier for an action that no editor here offers. */
export {}
